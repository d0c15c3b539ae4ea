import type { NamedFiles, Parsed } from './named-files.ts';

const HEADER = 'X-API-Key: ';
/** Shorter ones can be guessed, longer ones do not fit where they must go. */
const SHORTEST = 16;
const LONGEST = 256;

const MAKE_ONE = `make one: printf '${HEADER}%s' "$(openssl rand -hex 32)"`;

/** Reads the secret of the login side: the header that Dovecot sends, so that one file serves both. */
export function readApiKey(files: NamedFiles, written: string | undefined): Promise<string | null> {
  const limit = HEADER.length + LONGEST + 2;
  return files.secret(['logins', 'api_key_file'], written, { limit, remedy: MAKE_ONE, parse });
}

function parse(text: string, name: string): Parsed<string> {
  // Dovecot 2.3.19: with a line end in auth_policy_server_api_header the auth process ends at each login (http-client-request.c asserts).
  if (/[\r\n]$/.test(text)) {
    return bad(
      `${name} ends with a line end, at which Dovecot's auth process would abort`,
      'write it without one: printf, not echo',
    );
  }
  const key = text.slice(HEADER.length);
  if (!text.startsWith(HEADER)) return bad(`${name} does not begin with "${HEADER}"`, MAKE_ONE);
  if (!/^[!-~]+$/.test(key) || key.length < SHORTEST || key.length > LONGEST) {
    return bad(
      `${name} holds no secret of ${SHORTEST} to ${LONGEST} printable characters without spaces`,
      MAKE_ONE,
    );
  }
  return { ok: true, value: key };
}

function bad(wrong: string, remedy: string): Parsed<string> {
  return { ok: false, wrong, remedy };
}
