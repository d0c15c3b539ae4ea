import { z } from 'zod';

import { printable } from '../mail/reply.ts';
import type { SpamScan } from '../mail/spam-scan.ts';
import { NeighbourError } from '../ports/neighbour-error.ts';

/** Symbols that are taken from one answer. */
const SYMBOL_LIMIT = 500;
const SYMBOL_NAME = /^[A-Za-z0-9_]{1,100}$/;
const SCORE_LIMIT = 1_000_000_000;
const ACTION_LIMIT = 40;
const SERVER_LIMIT = 60;

const points = z.number().min(-SCORE_LIMIT).max(SCORE_LIMIT);

/** What is taken of the answer to /checkv2. Not `milter` and `subject`: what is done with a message is decided here. */
const answerForm = z.object({
  score: points,
  required_score: points,
  action: z.string(),
  symbols: z.record(z.string(), z.object({ score: points.optional() })).default({}),
});

const NO_ACTION = 'no action';

/** Reads the JSON of an answer. `server`: its Server field. @throws {NeighbourError} */
export function readRspamd(text: string, server: string): SpamScan {
  const reading = answerForm.safeParse(parsed(text));
  if (!reading.success) {
    const [issue] = reading.error.issues;
    const what = issue === undefined ? 'the answer' : `"${issue.path.join('.')}" (${issue.message})`;
    throw new NeighbourError(`what rspamd answered can't be read: ${printable(what, 200)}`);
  }
  const { score, required_score: required, action, symbols } = reading.data;
  const name = printable(server, SERVER_LIMIT);
  const scan = {
    score,
    required,
    rules: Object.entries(symbols)
      .filter(([symbol]) => SYMBOL_NAME.test(symbol))
      .toSorted(([, one], [, other]) => weight(other) - weight(one))
      .slice(0, SYMBOL_LIMIT)
      .map(([symbol]) => symbol),
    fields: [{ name: 'X-Spam-Checker-Version', value: ` ${name === '' ? 'rspamd' : name}` }],
  };
  return action === NO_ACTION ? scan : { ...scan, action: printable(action, ACTION_LIMIT) };
}

/** It has no order of its own: what counted most comes first. */
function weight({ score = 0 }: { readonly score?: number | undefined }): number {
  return Math.abs(score);
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new NeighbourError('what rspamd answered is no JSON', { cause: error });
  }
}
