import { StoreUnusable } from '../adapters/sqlite-schema.ts';
import { describeDecision, describeJourney } from '../evidence/history.ts';
import { NeighbourError } from '../ports/neighbour-error.ts';
import type { Decision, Store } from '../ports/store.ts';
import { EXIT } from './arguments.ts';
import { causes } from './causes.ts';
import { readConfig } from './config-file.ts';
import { parseHistory, type HistoryArguments } from './history-arguments.ts';
import { openHistory } from './open-store.ts';

const HELP = `Usage: postern history [FILTERS] [--limit N] [--facts] [--json] [--config FILE]

Prints what was decided about messages, the newest first. Works while the daemons run, and without them. With
[state.redis] it is what all hosts decided, each decision with the name of its host.

  --trace T       one message on its way through the daemons, with all that was found; T is the word in
                  brackets at the end of a refusal, and the value of X-Postern-Trace
  --queue-id Q    Postfix's queue id
  --from A        envelope sender; "@domain" for all of a domain, "<>" for bounces
  --to A          recipient, or "@domain"
  --client IP     address of the SMTP client
  --daemon D      policyd, milter or lmtp-filter
  --verdict V     accept, junk, quarantine, defer, reject or discard
  --rule R        rule that decided, such as "spf.fail" or "spf.*"
  --backscatter   mail that was accepted and then refused by lmtp-filter or by Dovecot behind it, or put off
                  because the mailbox is full: each one made a bounce, or made mail wait. Best is none
  --since T       from this time on: "30m", "2h", "7d" ago, or "2026-11-21", "2026-11-21T09:30:00Z"
  --until T       up to, and without, this time
  --limit N       no more than N decisions; 50 without it
  --facts         with all that was found
  --json          one JSON object on each line

Exit status: 0 also when nothing was found, 64 wrong use, 78 configuration not usable, 1 anything else.
`;

/** `postern history` */
export async function history(args: readonly string[]): Promise<number> {
  if (args.includes('--help') || args.includes('-h')) {
    process.stdout.write(HELP);
    return EXIT.ok;
  }
  const wanted = parseHistory(args, Date.now());
  const loaded = await readConfig(wanted.config);
  if (loaded === null) return EXIT.config;
  const { folder } = loaded.config.file.state;
  try {
    await using reader = await openHistory(loaded.config);
    if (reader === null) {
      process.stderr.write(
        `postern: there is no history yet in ${folder}; "postern run" begins one (another configuration? see --config)\n`,
      );
      return EXIT.failed;
    }
    await print(await answer(reader, wanted), wanted);
  } catch (error) {
    if (!(error instanceof StoreUnusable || error instanceof NeighbourError)) throw error;
    process.stderr.write(`postern: ${causes(error)}\n`);
    return EXIT.failed;
  }
  return EXIT.ok;
}

async function answer(
  reader: Pick<Store, 'history'>,
  { filter, journey }: HistoryArguments,
): Promise<readonly Decision[]> {
  const decisions = await reader.history(filter);
  return journey ? decisions.toReversed() : decisions;
}

async function print(
  decisions: readonly Decision[],
  { json, facts, journey }: HistoryArguments,
): Promise<void> {
  if (json) {
    for (const decision of decisions) await write(`${JSON.stringify(decision)}\n`);
    return;
  }
  if (decisions.length === 0) {
    process.stderr.write('postern: nothing is recorded that fits\n');
    return;
  }
  if (journey) {
    await write(`${describeJourney(decisions).join('\n')}\n`);
    return;
  }
  for (const decision of decisions) await write(`${describeDecision(decision, facts).join('\n')}\n`);
}

/** Waits for a slow reader, so that a large answer does not pile up in memory. */
function write(text: string): Promise<void> {
  return new Promise((resolve, reject) => {
    process.stdout.write(text, (error) => {
      if (error) reject(error);
      else resolve();
    });
  });
}
