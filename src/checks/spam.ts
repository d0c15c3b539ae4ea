import type { HeaderField } from '../mail/header.ts';
import type { Message } from '../mail/message.ts';
import type { SpamScan } from '../mail/spam-scan.ts';
import type { Finding } from '../verdict/finding.ts';
import { messageCheck, UnmetNeed } from './check.ts';
import { byteSize } from './options.ts';
import { scanPreamble } from './spam-preamble.ts';

/** Rules named in a finding's detail; all of them are in its scan. */
const RULES_SHOWN = 20;

/** Fields that tell what a scanner or we found, or what the envelope was: from outside they are no more than a claim. */
const HIDDEN = ['x-spam-', 'x-envelope-', 'x-postern-'];

/** What SpamAssassin gives a message. */
export const spamCheck = messageCheck({
  name: 'spam',
  stage: 'message',
  summary: "SpamAssassin's score of incoming mail.",
  directions: ['in'],
  needs: [],
  codes: {
    'spam.scored': {
      meaning: 'The scanner gave its score; what is done about it follows from the thresholds.',
      action: 'ignore',
    },
    'spam.too-large': {
      meaning: 'The message is larger than max_size and was not scanned.',
      action: 'ignore',
    },
  },
  unavailable: 'defer',
  deadline: '60s',
  options: {
    max_size: byteSize().prefault('500KiB').describe('Larger messages are not scanned.'),
  },
  ready: (tools) => tools.scanner !== null,
  async run({ facts, tools, options, signal }) {
    const { message } = facts;
    if (tools.scanner === null) throw new UnmetNeed('no scanner is configured');
    const size = sizeOf(message);
    if (size > options.max_size) {
      const detail = `message of ${size} octets is larger than max_size, ${options.max_size} octets`;
      return [{ code: 'spam.too-large', detail }];
    }
    const preamble = scanPreamble(message, tools.hostname, tools.clock.now());
    return [spamFinding(await tools.scanner.scan({ message, preamble, hide }, signal))];
  },
});

/** What a scan means as a fact; the same for one just made and one kept from an earlier stage. */
export function spamFinding(scan: SpamScan): Finding {
  const shown = scan.rules.slice(0, RULES_SHOWN).join(',');
  const more = scan.rules.length - RULES_SHOWN;
  const rules = more > 0 ? `${shown} and ${more} more` : shown;
  return {
    code: 'spam.scored',
    detail: `${scan.score.toFixed(1)} of ${scan.required.toFixed(1)} points (${rules === '' ? 'no rule hit' : rules})`,
    score: scan.score,
    scan,
  };
}

function hide(field: HeaderField): boolean {
  const name = field.name.toLowerCase();
  return HIDDEN.some((prefix) => name.startsWith(prefix));
}

function sizeOf(message: Message): number {
  let size = message.body.size;
  for (const { name, value } of message.headers) size += name.length + value.length + 3;
  return size;
}
