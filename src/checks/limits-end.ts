import type { Finding } from '../verdict/finding.ts';
import { endCheck, type CheckTools, type EndFacts } from './check.ts';
import { countHits } from './limit-excess.ts';
import { giveBack } from './limits.ts';
import { knownLedger, type Ledger } from './limit-ledger.ts';
import { LIMIT_OPTIONS, limitCodes } from './limit-options.ts';

/** Puts right what was counted at RCPT, once the real size and number of recipients are known. */
export const limitsEndCheck = endCheck({
  name: 'limits-end',
  stage: 'end',
  partOf: 'limits',
  summary:
    'The limits again at DATA and at the end of the message, with its real size and its real recipients.',
  directions: ['in', 'out'],
  needs: [],
  codes: {},
  codesOf: limitCodes,
  unavailable: 'ignore',
  deadline: '2s',
  options: LIMIT_OPTIONS,
  ready: (_tools, options) => options.limit.length > 0,
  run({ facts, tools }) {
    const ledger = knownLedger(facts.identity);
    if (ledger === null) return [];
    giveBack(tools, ledger.takeMissing(facts.accepted.length - facts.recipientCount));
    // At DATA there is no more than the size that was counted.
    if (facts.moment === 'data' || facts.size === null) return [];
    return correctSize(facts, facts.size, ledger, tools);
  },
});

function correctSize(
  facts: EndFacts,
  size: number,
  ledger: Ledger,
  tools: CheckTools,
): readonly Finding[] | Promise<readonly Finding[]> {
  const wrong = ledger.sizedOtherwise(size);
  giveBack(
    tools,
    wrong.flatMap(({ hit }) => (hit.cost > size ? [{ ...hit, cost: hit.cost - size }] : [])),
  );
  const larger = wrong.flatMap(({ limit, hit }) =>
    hit.cost < size ? [{ limit, hit: { ...hit, cost: size - hit.cost } }] : [],
  );
  if (larger.length > 0) return countMore(larger, facts, size, ledger, tools);
  ledger.resize(size);
  return [];
}

async function countMore(
  more: Parameters<typeof countHits>[0],
  facts: EndFacts,
  size: number,
  ledger: Ledger,
  tools: CheckTools,
): Promise<readonly Finding[]> {
  const { findings, onlookers } = await countHits(more, facts, tools);
  // The message is refused with all its recipients: nothing of it counts.
  if (onlookers === null) ledger.resize(size);
  else giveBack(tools, [...onlookers, ...ledger.takeAll()]);
  return findings;
}
