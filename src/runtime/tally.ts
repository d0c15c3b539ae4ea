import { Counter, Histogram, type HistogramConfiguration } from 'prom-client';

/**
 * Counters and histograms for what is counted many times for each request. prom-client makes a key of the labels each time; here they are
 * looked up once, counting is an addition, and what was counted joins the metric when it is read.
 */

type Labels = Readonly<Partial<Record<string, string>>>;

/** One series of a counter. */
export interface Tally {
  count: number;
}

export class TallyCounter extends Counter {
  readonly #tallies: { readonly labels: Labels; readonly tally: Tally }[] = [];

  tally(labels: Labels): Tally {
    this.inc(labels, 0);
    const tally = { count: 0 };
    this.#tallies.push({ labels, tally });
    return tally;
  }

  override get(): ReturnType<Counter['get']> {
    for (const { labels, tally } of this.#tallies) {
      if (tally.count > 0) this.inc(labels, tally.count);
      tally.count = 0;
    }
    return super.get();
  }
}

/** One series of a histogram. */
export class Spread {
  readonly #bounds: readonly number[];
  /** How many fell between a bound and the one before; the last: above all bounds. */
  readonly #counts: number[];
  #sum = 0;

  constructor(bounds: readonly number[]) {
    this.#bounds = bounds;
    this.#counts = Array.from({ length: bounds.length + 1 }, () => 0);
  }

  observe(value: number): void {
    const bounds = this.#bounds;
    let index = 0;
    while (index < bounds.length && value > (bounds[index] ?? Infinity)) index++;
    this.#counts[index] = (this.#counts[index] ?? 0) + 1;
    this.#sum += value;
  }

  /** As the exposition format has it: each bucket holds those below it too. */
  read(): {
    readonly buckets: [le: number | '+Inf', count: number][];
    readonly sum: number;
    readonly count: number;
  } {
    let count = 0;
    const buckets = this.#counts.map((own, index): [number | '+Inf', number] => {
      count += own;
      return [this.#bounds[index] ?? '+Inf', count];
    });
    return { buckets, sum: this.#sum, count };
  }
}

/** One line of a histogram, as prom-client hands it from the metric to the registry. */
interface Line {
  readonly labels: { readonly le?: number | '+Inf' };
  readonly sharedLabels: Readonly<Record<string, unknown>>;
  readonly value: number;
  readonly metricName: string;
}

export class SpreadHistogram extends Histogram {
  readonly #name: string;
  readonly #help: string;
  readonly #bounds: readonly number[];
  readonly #spreads = new Map<string, { readonly labels: Labels; readonly spread: Spread }>();

  constructor(options: HistogramConfiguration<string> & { readonly buckets: number[] }) {
    super(options);
    this.#name = options.name;
    this.#help = options.help;
    this.#bounds = options.buckets;
  }

  /** The same for the same labels. */
  spread(labels: Labels): Spread {
    const key = JSON.stringify(labels);
    let known = this.#spreads.get(key);
    if (known === undefined) this.#spreads.set(key, (known = { labels, spread: new Spread(this.#bounds) }));
    return known.spread;
  }

  /** What prom-client asks, for its text format and for `get` alike. */
  getForPromString(): Promise<object> {
    const values: Line[] = [];
    for (const { labels: sharedLabels, spread } of this.#spreads.values()) {
      const { buckets, sum, count } = spread.read();
      const line = (suffix: string, value: number, labels: Line['labels'] = {}): void => {
        values.push({ labels, sharedLabels, value, metricName: `${this.#name}_${suffix}` });
      };
      for (const [le, below] of buckets) line('bucket', below, { le });
      line('sum', sum);
      line('count', count);
    }
    return Promise.resolve({
      name: this.#name,
      help: this.#help,
      type: 'histogram',
      values,
      aggregator: 'sum',
    });
  }
}
