import type { LabelKind } from '../ports/store.ts';
import { LABEL_KINDS } from '../ports/store.ts';

/**
 * What Dovecot's Pigeonhole sends to a program that it reaches by a socket (`sieve_pipe_socket_dir`), the script protocol, version 4:
 *
 *     VERSION TAB script TAB 4 TAB 0
 *     env_NAME=VALUE            any number of them
 *     alarm=SECONDS             when it has a time limit
 *     - or noreply
 *     ARGUMENT                  any number of them
 *     (empty line)
 *     the message, up to the end of what Dovecot sends
 *
 * each line with a bare LF. The answer is `+` or `-` and a LF. Observed at Dovecot 2.3.19; Dovecot's own `script` service says the same.
 */
export interface ScriptRequest {
  readonly label: LabelKind;
  /** Login name. Dovecot says it itself, whatever the Sieve script is. */
  readonly user: string;
}

/** Octets up to the empty line. */
export const SCRIPT_HEAD_LIMIT = 4096;
/** The line end of its last line, and the empty line. */
export const HEAD_END = Buffer.from('\n\n');
/** RFC 5321 §4.5.3.1: local part and domain. Text of a user's name beyond that is no address. */
export const USER_LIMIT = 320;

export class ScriptFault extends Error {}

/** Reads the head, without its empty line; given as UTF-8. @throws {ScriptFault} */
export function parseScriptHead(head: string): ScriptRequest {
  const [version = '', ...lines] = head.split('\n');
  if (!/^VERSION\tscript\t4\t\d{1,9}$/.test(version)) {
    throw new ScriptFault("this is not Dovecot's script protocol, version 4");
  }
  let user: string | null = null;
  let place = 0;
  for (; place < lines.length; place++) {
    const [, name, value = ''] = /^env_([^=]+)=(.*)$/s.exec(lines[place] ?? '') ?? [];
    if (name === undefined) break;
    if (name === 'USER') user = value;
  }
  if (/^alarm=\d{1,9}$/.test(lines[place] ?? '')) place++;
  if (lines[place] !== '-' && lines[place] !== 'noreply') {
    throw new ScriptFault('a line is neither "-" nor "noreply"');
  }
  const [word, ...surplus] = lines.slice(place + 1);
  const label = LABEL_KINDS.find((kind) => kind === word);
  if (label === undefined || surplus.length > 0) {
    throw new ScriptFault('the one argument is to be "spam" or "ham"');
  }
  if (user === null || !isUserName(user)) throw new ScriptFault('it does not say for which user');
  return { label, user };
}

/** Whether this can be the name of somebody who has a mailbox. */
export function isUserName(text: string): boolean {
  return text.length > 0 && text.length <= USER_LIMIT && !/[\p{C}\p{Z}]/u.test(text);
}
