/** Postfix takes mail for it; Dovecot does not know it. */
export const GHOST = 'ghost@olimpus.example';

/** One message for one recipient. */
export interface Delivery {
  readonly subject: string;
  readonly recipient: string;
  readonly copies: number;
  /** Copies that bear the words of a scanner. */
  readonly scanned: number;
  readonly bounced: boolean;
  readonly queued: boolean;
  /** Whether it had to wait once at least. */
  readonly putOff: boolean;
  /** So often a connection was cut when Dovecot might have had it and Postfix was not told. */
  readonly excuses: number;
  /** Of these, cut by the death of lmtp-filter, which then can't tell of it. */
  readonly silent: number;
}

export interface StormReport {
  readonly kills: readonly { readonly victim: string; readonly step: string }[];
  readonly deliveries: readonly Delivery[];
  /** Recipients that lmtp-filter said may get a message twice, by the message's subject. */
  readonly possibleDuplicates: ReadonlyMap<string, number>;
  readonly seconds: number;
  /** What lmtp-filter logged. */
  readonly log: string;
}

/** What is wrong with the account: mail lost, told twice over, doubled without excuse, or doubled and not told of by one who lived to tell. */
export function mistakes(report: Pick<StormReport, 'deliveries' | 'possibleDuplicates'>): string[] {
  const wrong = report.deliveries.flatMap(({ subject, recipient, copies, bounced, queued, excuses }) => {
    // What is queued may have been delivered as well, when the answer was lost.
    const ends = Number(copies > 0 || queued) + Number(bounced);
    const name = `${subject} to ${recipient}`;
    if (ends !== 1)
      return [`${name}: ${copies} copies, ${bounced ? '' : 'not '}bounced, ${queued ? '' : 'not '}queued`];
    if (!queued && bounced !== (recipient === GHOST))
      return [`${name}: ${bounced ? 'bounced' : 'delivered'}`];
    return copies - 1 > excuses ? [`${name}: ${copies} copies with ${excuses} excuses`] : [];
  });
  const toTell = new Map<string, number>();
  for (const { subject, copies, silent } of report.deliveries)
    toTell.set(subject, (toTell.get(subject) ?? 0) + Math.max(0, copies - 1 - silent));
  const untold = Array.from(toTell).flatMap(([subject, duplicates]) => {
    const told = report.possibleDuplicates.get(subject) ?? 0;
    return duplicates > told ? [`${subject}: ${duplicates} duplicates, ${told} told of`] : [];
  });
  return [...wrong, ...untold];
}

export interface StormSums {
  readonly recipients: number;
  readonly delivered: number;
  readonly bounced: number;
  readonly queued: number;
  readonly duplicates: number;
  readonly inDoubt: number;
  /** Recipients that lmtp-filter told of, as postern_lmtp_possible_duplicates_total counts them. */
  readonly toldOf: number;
  readonly scanned: number;
  readonly putOff: number;
}

/** The account as numbers: each recipient of each message counts once. */
export function sums({ deliveries, possibleDuplicates }: StormReport): StormSums {
  const sum = (of: (delivery: Delivery) => number): number =>
    deliveries.reduce((total, delivery) => total + of(delivery), 0);
  return {
    recipients: deliveries.length,
    delivered: sum(({ copies }) => Math.min(1, copies)),
    bounced: sum(({ bounced }) => Number(bounced)),
    queued: sum(({ queued }) => Number(queued)),
    duplicates: sum(({ copies }) => Math.max(0, copies - 1)),
    inDoubt: sum(({ excuses }) => excuses),
    toldOf: possibleDuplicates.values().reduce((total, recipients) => total + recipients, 0),
    scanned: sum(({ scanned }) => scanned),
    putOff: sum(({ putOff }) => Number(putOff)),
  };
}
