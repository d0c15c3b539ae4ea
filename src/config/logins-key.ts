import { shown } from './errors.ts';
import { readSmallFile } from './files.ts';
import { isCredential } from './keys.ts';

/** The secret of the login side, or why the file can't be used. */
export type ApiKeyReading =
  | { readonly ok: true; readonly key: string }
  | { readonly ok: false; readonly wrong: string; readonly remedy: string };

const HEADER = 'X-API-Key: ';
/** Shorter ones can be guessed, longer ones do not fit where they must go. */
const SHORTEST = 16;
const LONGEST = 256;

const MAKE_ONE = `make one: printf '${HEADER}%s' "$(openssl rand -hex 32)"`;

/** Reads the header that Dovecot sends, so that one file serves both. The text of the file is in no message. */
export async function readApiKey(path: string): Promise<ApiKeyReading> {
  const reading = await readSmallFile(path, HEADER.length + LONGEST + 2);
  if (!reading.ok) return bad(`${shown(path)} can't be used: ${reading.detail}`, MAKE_ONE);
  const mode = reading.stat.mode & 0o777;
  if ((mode & 0o077) !== 0 && !isCredential(path)) {
    const who = (mode & 0o007) === 0 ? 'its group' : 'everybody';
    return bad(
      `${shown(path)} is open to ${who} (mode 0${mode.toString(8)})`,
      'take the permissions away: chmod 600',
    );
  }
  const text = reading.octets.toString('latin1');
  // Dovecot 2.3.19: with a line end in auth_policy_server_api_header the auth process ends at each login (http-client-request.c asserts).
  if (/[\r\n]$/.test(text)) {
    return bad(
      `${shown(path)} ends with a line end, at which Dovecot's auth process would abort`,
      'write it without one: printf, not echo',
    );
  }
  const key = text.slice(HEADER.length);
  if (!text.startsWith(HEADER)) return bad(`${shown(path)} does not begin with "${HEADER}"`, MAKE_ONE);
  if (!/^[!-~]+$/.test(key) || key.length < SHORTEST || key.length > LONGEST) {
    return bad(
      `${shown(path)} holds no secret of ${SHORTEST} to ${LONGEST} printable characters without spaces`,
      MAKE_ONE,
    );
  }
  return { ok: true, key };
}

function bad(wrong: string, remedy: string): ApiKeyReading {
  return { ok: false, wrong, remedy };
}
