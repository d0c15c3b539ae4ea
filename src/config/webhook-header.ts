import type { NamedFiles, Parsed } from './named-files.ts';

export interface WebhookHeader {
  readonly name: string;
  readonly value: string;
}

/** Longer than any token; web servers refuse fields of more than 8 KB. */
export const LARGEST_HEADER_FILE = 4096;

const MAKE_ONE = 'expected one line such as "Authorization: Bearer …"';

/** Fields by which the request itself is told. RFC 9110 §7.2, §8.6, RFC 9112 §6.1, §9.6. */
const NOT_THESE =
  /^(?:host|content-length|content-type|transfer-encoding|connection|upgrade|te|trailer|expect)$/i;

/** Reads the field that the webhook wants. */
export function readWebhookHeader(
  files: NamedFiles,
  written: string | undefined,
): Promise<WebhookHeader | null> {
  const form = { limit: LARGEST_HEADER_FILE, remedy: MAKE_ONE, parse };
  return files.secret(['notices', 'webhook_header_file'], written, form);
}

function parse(text: string, file: string): Parsed<WebhookHeader> {
  // RFC 9110 §5.1, §5.5: a token, and printable text without white space around it.
  const line = /^([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([!-~](?:[ -~]*[!-~])?)\r?\n?$/.exec(text);
  const [, name = '', value = ''] = line ?? [];
  if (line === null) return { ok: false, wrong: `${file} holds no header field`, remedy: MAKE_ONE };
  if (NOT_THESE.test(name)) {
    const wrong = `${file} holds the field ${name}, which is not free to choose`;
    return { ok: false, wrong, remedy: MAKE_ONE };
  }
  return { ok: true, value: { name, value } };
}
