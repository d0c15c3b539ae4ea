import { execFileSync } from 'node:child_process';
import { generateKeyPairSync } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { formatProblem } from '../../../src/config/errors.ts';
import { loadConfig } from '../../../src/config/load.ts';

let folder: string;

/** Key files that the snippets name, each with one thing wrong. */
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'postern-mistakes-'));
  const put = (name: string, text: string | Buffer, mode = 0o600): Promise<void> =>
    writeFile(join(folder, name), text, { mode });
  const pkcs8 = { type: 'pkcs8', format: 'pem' } as const;
  const good = generateKeyPairSync('ed25519');
  const pem = good.privateKey.export(pkcs8);
  const locked = good.privateKey.export({ ...pkcs8, cipher: 'aes-128-cbc', passphrase: 'secret' });
  await put('good.private', pem);
  await put('group.private', pem, 0o640);
  await put('locked.private', locked);
  await put('public.pem', good.publicKey.export({ type: 'spki', format: 'pem' }));
  await put('elliptic.private', generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey.export(pkcs8));
  await put('short.private', generateKeyPairSync('rsa', { modulusLength: 768 }).privateKey.export(pkcs8));
  await put('record.txt', 'mail._domainkey IN TXT "v=DKIM1; p=MCow"\n');
  await put('damaged.private', '-----BEGIN PRIVATE KEY-----\nbm90IGEga2V5\n-----END PRIVATE KEY-----\n');
});

afterAll(() => rm(folder, { recursive: true }));

/** Every problem of a file with this content, as it is printed, with `postern.toml` and key files by their bare names. */
async function mistakes(content: string | Uint8Array): Promise<string[]> {
  const path = join(folder, 'postern.toml');
  await writeFile(path, content);
  const result = await loadConfig(path);
  const problems = result.ok ? result.faults : result.problems;
  return problems.map((problem) => formatProblem(problem).replaceAll(`${folder}/`, ''));
}

const ADDRESS = 'expected "host:port" (IPv6 in brackets: "[::1]:25") or "unix:/absolute/path"';
const DURATION = 'expected a duration such as "250ms", "5s", "10m", "2h" or "30d"';
const ACTION =
  'expected one of "ignore", "tag", "junk", "quarantine", "defer", "reject", "discard", "allow", or "score N" with a number N';
const MAILBOX = 'expected "user@domain" or "@domain"';
const KEY = '[[signing.key]]\ndomain = "example.org"\nselector = "mail"\n';
const KEY_FORM = 'expected a PEM file as opendkim-genkey or "openssl genpkey" makes it';

interface Mistake {
  readonly name: string;
  readonly file: string;
  /** Everything that is printed. */
  readonly says: readonly string[];
}

const MISTAKES: readonly Mistake[] = [
  // What TOML itself does not allow.
  {
    name: 'an address without quotes',
    file: '[policyd]\nlisten = 127.0.0.1:10040\n',
    says: ['postern.toml:2:10: a text without quotes; write "127.0.0.1:10040"'],
  },
  {
    name: 'a word without quotes',
    file: '[log]\nlevel = info # usual\n',
    says: ['postern.toml:2:9: a text without quotes; write "info"'],
  },
  {
    name: 'yes instead of true',
    file: '[checks.spf]\nenabled = yes\n',
    says: ['postern.toml:2:11: this is neither true nor false; write true'],
  },
  {
    name: 'a missing closing quote',
    file: '[log]\nlevel = "info\n',
    says: ['postern.toml:2:14: this text has no end; expected a closing quote on the same line'],
  },
  {
    name: 'a section name without its bracket',
    file: '[milter\nlisten = "127.0.0.1:1"\n',
    says: ['postern.toml:1:8: this section name has no end; expected "]" after it'],
  },
  {
    name: 'a colon in place of "="',
    file: '[log]\nlevel: "info"\n',
    says: ['postern.toml:2:6: there is ":" after the key; expected "=": key = value'],
  },
  {
    name: 'no "=" at all',
    file: '[log]\nlevel "info"\n',
    says: ['postern.toml:2:7: there is no "=" after the key; expected key = value'],
  },
  {
    name: 'no value',
    file: '[log]\nlevel =\n\n[dns]\n',
    says: ['postern.toml:2:8: there is no value after "="; expected key = value'],
  },
  {
    name: 'a key that is there twice',
    file: '[log]\nlevel = "info"\nlevel = "warn"\n',
    says: ['postern.toml:3:1: this key is here twice; remove one of the two'],
  },
  {
    name: 'a section that is there twice',
    file: '[log]\n[dns]\n[log]\nlevel = "warn"\n',
    says: ['postern.toml:3:2: this section is here twice; remove one of the two'],
  },
  {
    name: 'a list without its end',
    file: '[site]\nown_networks = ["127.0.0.0/8"\nhostname = "mail.example.org"\n',
    says: ['postern.toml:2:30: this list has no end; expected "]" after its last entry'],
  },
  {
    name: 'a file that is not UTF-8',
    file: 'latin1:[site]\n# Stra\u00dfe\n',
    says: ['postern.toml:2:7: this is not UTF-8; save the file as UTF-8, or write the character as \\uXXXX'],
  },
  // Keys.
  {
    name: 'a misspelt key',
    file: '[milter]\nmax_conections = 5\n',
    says: ['postern.toml:2:1: milter.max_conections: no such key; did you mean "max_connections"?'],
  },
  {
    name: 'a misspelt section',
    file: '[lmtp_filter]\nlisten = "127.0.0.1:1"\n',
    says: ['postern.toml:1:2: lmtp_filter: no such key; did you mean "lmtp-filter"?'],
  },
  {
    name: 'a key in the wrong section',
    file: '[dns]\nspf_header = "none"\n',
    says: ['postern.toml:2:1: dns.spf_header: no such key; "spf_header" belongs in [policyd]'],
  },
  {
    name: 'a key of the top below a section',
    file: '[thresholds]\ntag = 6\nsubject_tag = "[X]"\n',
    says: [
      'postern.toml:3:1: thresholds.subject_tag: no such key; "subject_tag" belongs at the top of the file, before the first [section]',
    ],
  },
  {
    name: 'a check that does not exist',
    file: '[checks.dkin]\nenabled = false\n',
    says: ['postern.toml:1:9: checks.dkin: no such key; did you mean "dkim"?'],
  },
  {
    name: 'a key that is missing',
    file: '[[signing.key]]\ndomain = "example.org"\nfile = "good.private"\n',
    says: ['postern.toml:1:11: signing.key[1].selector: the key "selector" is missing; add selector = …'],
  },
  // Values.
  {
    name: 'an address as OpenDKIM writes it',
    file: '[milter]\nlisten = "inet:8891@localhost"\n',
    says: [
      `postern.toml:2:10: milter.listen: found "inet:8891@localhost"; ${ADDRESS}: write "localhost:8891"`,
    ],
  },
  {
    name: 'a port alone',
    file: '[milter]\nlisten = 8891\n',
    says: [`postern.toml:2:10: milter.listen: found 8891; ${ADDRESS}`],
  },
  {
    name: 'a duration without its unit',
    file: '[policyd]\ndeadline = 8\n',
    says: [`postern.toml:2:12: policyd.deadline: found 8; ${DURATION}`],
  },
  {
    name: 'a deadline of nothing',
    file: '[checks.spf]\ndeadline = "0s"\n',
    says: [
      'postern.toml:2:12: checks.spf.deadline: found "0s"; expected a duration above "0s" and of at most "1h"',
    ],
  },
  {
    name: 'a size in the wrong unit',
    file: '[milter]\nmax_message_size = "10MB"\n',
    says: [
      'postern.toml:2:20: milter.max_message_size: found "10MB"; expected a size such as "800B", "512KiB", "10MiB" or "1GiB"',
    ],
  },
  {
    name: 'permissions that are not octal text',
    file: '[milter]\nmode = 660\n',
    says: ['postern.toml:2:8: milter.mode: found 660; expected octal permissions in quotes such as "0660"'],
  },
  {
    name: 'a number out of range',
    file: '[lmtp-filter]\nmax_connections = 0\n',
    says: ['postern.toml:2:19: lmtp-filter.max_connections: found 0; expected at least 1'],
  },
  {
    name: 'a misspelt word of a few',
    file: '[log]\nlevel = "warning"\n',
    says: [
      'postern.toml:2:9: log.level: found "warning"; did you mean "warn"? expected "debug", "info", "warn" or "error"',
    ],
  },
  {
    name: 'a text where true or false belongs',
    file: '[checks.spf]\nenabled = "true"\n',
    says: ['postern.toml:2:11: checks.spf.enabled: found "true"; expected true or false'],
  },
  {
    name: 'a network that is none, among others',
    file: '[site]\nown_networks = [\n  "127.0.0.0/8",\n  "10.0.0.0/33",\n]\n',
    says: [
      'postern.toml:4:3: site.own_networks[2]: found "10.0.0.0/33"; expected an IP address or a network such as "192.0.2.0/24" or "2001:db8::/32"',
    ],
  },
  {
    name: 'a name server by name',
    file: '[dns]\nservers = ["ns1.example.org"]\n',
    says: [
      'postern.toml:2:12: dns.servers[1]: found "ns1.example.org"; expected the IP address of a name server, such as "192.0.2.53", "192.0.2.53:5353" or "[2001:db8::53]:53"',
    ],
  },
  {
    name: 'a line break in what goes into a header field',
    file: 'subject_tag = "[SPAM]\\r\\nX-Spam-Flag: NO"\n',
    says: [
      'postern.toml:1:15: subject_tag: the text holds the control character \\u000D; expected text on one line',
    ],
  },
  // Rules and bands.
  {
    name: 'a misspelt finding code',
    file: '[rules]\nspf.fial = "reject"\n',
    says: ['postern.toml:2:5: rules.spf.fial: no check finds this; did you mean "spf.fail"?'],
  },
  {
    name: 'a misspelt action',
    file: '[rules]\n"spf.fail" = "rejct"\n',
    says: [`postern.toml:2:14: rules.spf.fail: found "rejct"; did you mean "reject"? ${ACTION}`],
  },
  {
    name: 'a misspelt action in a table, and a key that it does not have',
    file: '[rules]\nspf.fail = { action = "scor 5", shadwo = true }\n',
    says: [
      `postern.toml:2:23: rules.spf.fail.action: found "scor 5"; ${ACTION}`,
      'postern.toml:2:33: rules.spf.fail.shadwo: no such key; did you mean "shadow"?',
    ],
  },
  {
    name: 'a rule that is there in both ways of writing',
    file: '[rules]\n"spf.fail" = "reject"\nspf.fail = "defer"\n',
    says: ['postern.toml:3:5: rules.spf.fail: this rule is here twice; remove one of the two'],
  },
  {
    name: 'a check that can never be unavailable',
    file: '[unavailable]\nspamd = "ignore"\n',
    says: ['postern.toml:2:1: unavailable.spamd: no such check; did you mean "spam"?'],
  },
  {
    name: 'bands of outgoing mail in the wrong order, with what they take over',
    file: '[thresholds]\nreject = 15\noutgoing.tag = 16\n',
    says: [
      'postern.toml:3:16: thresholds.outgoing.tag: tag at 16 points is above reject at 15 points; expected 15 or less',
    ],
  },
  {
    name: 'two scanners at once',
    file: '[spamd]\nenabled = true\n[rspamd]\nenabled = true\n',
    says: [
      'postern.toml:4:11: rspamd.enabled: spamd.enabled is true, and only one of them can give the score; expected false here or there',
    ],
  },
  {
    name: 'a scanner without a port',
    file: '[spamd]\naddress = "spamd.example.org"\n',
    says: [
      'postern.toml:2:11: spamd.address: found "spamd.example.org"; expected "host:port" (IPv6 in brackets: "[::1]:783") or "unix:/absolute/path", or a list of 1 to 16 of these',
    ],
  },
  {
    name: 'a list without an address',
    file: '[spamd]\naddress = []\n',
    says: ['postern.toml:2:11: spamd.address: found an empty list; expected at least 1 entry'],
  },
  {
    name: 'bands in the wrong order',
    file: '[thresholds]\ntag = 6\njunk = 10\nreject = 8\n',
    says: [
      'postern.toml:4:10: thresholds.reject: reject at 8 points is below junk at 10 points; expected 10 or more, or a lower junk',
    ],
  },
  {
    name: 'a band out of order with one further away',
    file: '[thresholds]\ntag = 6\ndiscard = 5\n',
    says: [
      'postern.toml:3:11: thresholds.discard: discard at 5 points is below tag at 6 points; expected 6 or more, or a lower tag',
    ],
  },
  {
    name: 'a folder in the recipient without an extension',
    file: '[site]\nrecipient_delimiter = ""\n[lmtp-filter]\nfiling = "folder"\n',
    says: [
      'postern.toml:4:10: lmtp-filter.filing: there is no address extension that could name a folder; set site.recipient_delimiter, or filing = "header"',
    ],
  },
  {
    name: 'a folder that no address can name',
    file: '[lmtp-filter]\nfiling = "detail"\n[feedback]\njunk = "Junk mail"\n',
    says: [
      'postern.toml:2:10: lmtp-filter.filing: the folder "Junk mail" can\'t be named in an address; expected feedback.junk of ASCII without spaces, or filing = "header"',
    ],
  },
  {
    name: 'a band below the default of another',
    file: '[thresholds]\njunk = 4\n',
    says: [
      'postern.toml:2:8: thresholds.junk: junk at 4 points is below tag at 5 points; expected 5 or more, or a lower tag',
    ],
  },
  {
    name: "a user's band that contradicts the domain's",
    file: '[[override]]\nrecipients = ["thor@example.org"]\nthresholds.tag = 9\n[[override]]\nrecipients = ["@example.org"]\nthresholds.junk = 8\n',
    says: [
      'postern.toml:3:18: override[1].thresholds.tag: tag at 9 points is above junk at 8 points; expected 8 or less',
    ],
  },
  {
    name: 'an override for nobody',
    file: '[[override]]\nrecipients = ["thor", "example.org"]\nrules.spf.fail = "ignore"\n',
    says: [
      `postern.toml:2:15: override[1].recipients[1]: found "thor"; ${MAILBOX}`,
      `postern.toml:2:23: override[1].recipients[2]: found "example.org"; ${MAILBOX}`,
    ],
  },
  {
    name: 'two overrides for one mailbox',
    file: '[[override]]\nrecipients = ["thor@example.org"]\nsubject_tag = ""\n[[override]]\nrecipients = [\n  "Thor+lists@EXAMPLE.org",\n]\nsubject_tag = "x"\n',
    says: [
      'postern.toml:6:3: override[2].recipients[1]: "thor@example.org" is here a second time; remove it here or on line 2',
    ],
  },
  {
    name: 'the name of a check in place of a finding code',
    file: '[rules]\nspam = "junk"\n',
    says: [
      'postern.toml:2:1: rules.spam: no check finds this; expected "spam.scored", "spam.too-large", "spam.truncated", "spam.action-greylist", "spam.action-add-header", "spam.action-rewrite-subject", "spam.action-soft-reject", "spam.action-reject" or "spam.action-other"',
    ],
  },
  {
    name: 'bands of the site in the wrong order, which an override takes over: named once',
    file: '[thresholds]\njunk = 4\n[[override]]\nrecipients = ["@example.org"]\nthresholds.reject = 20\n',
    says: [
      'postern.toml:2:8: thresholds.junk: junk at 4 points is below tag at 5 points; expected 5 or more, or a lower tag',
    ],
  },
  // Sockets.
  {
    name: 'two daemons on one port',
    file: '[policyd]\nlisten = "127.0.0.1:9000"\n[lmtp-filter]\nlisten = "0.0.0.0:9000"\n',
    says: [
      'postern.toml:4:10: lmtp-filter.listen: policyd.listen listens on 127.0.0.1:9000 already; expected an address of its own',
    ],
  },
  {
    name: 'a daemon on the default port of another that is not in the file',
    file: '[policyd]\nlisten = "localhost:8891"\n',
    says: [
      'postern.toml:2:10: policyd.listen: milter.listen listens on 127.0.0.1:8891 already; expected an address of its own',
    ],
  },
  {
    name: 'delivery to the filter itself',
    file: '[lmtp-filter]\nlisten = "unix:/run/dovecot/lmtp"\n',
    says: [
      "postern.toml:2:10: lmtp-filter.listen: mail would be delivered to the filter itself; expected the address of Dovecot's LMTP listener",
    ],
  },
  {
    name: 'more memory for a message than it may have',
    file: '[milter]\nmax_message_size = "1MiB"\nmemory_per_message = "2MiB"\n',
    says: [
      'postern.toml:3:22: milter.memory_per_message: more than max_message_size allows a message to have; expected no more than max_message_size',
    ],
  },
  // Keys that sign.
  {
    name: 'a key file that is not there',
    file: `${KEY}file = "nowhere.private"\n`,
    says: [
      'postern.toml:4:8: signing.key[1].file: "nowhere.private" can\'t be used: it does not exist; expected the path of a file with a private key',
    ],
  },
  {
    name: 'a key file that the group can read',
    file: `${KEY}file = "group.private"\n`,
    says: [
      'postern.toml:4:8: signing.key[1].file: "group.private" is open to its group (mode 0640); take the permissions away: chmod 600',
    ],
  },
  {
    name: 'the DNS record in place of the key',
    file: `${KEY}file = "record.txt"\n`,
    says: [`postern.toml:4:8: signing.key[1].file: "record.txt" holds no PEM; ${KEY_FORM}`],
  },
  {
    name: 'the public key in place of the private one',
    file: `${KEY}file = "public.pem"\n`,
    says: [
      'postern.toml:4:8: signing.key[1].file: "public.pem" holds the public key; expected the private key; the public one goes into DNS',
    ],
  },
  {
    name: 'a key with a pass phrase',
    file: `${KEY}file = "locked.private"\n`,
    says: [
      'postern.toml:4:8: signing.key[1].file: "locked.private" is protected by a pass phrase; expected a key without one: run openssl pkey -in … -out …',
    ],
  },
  {
    name: 'a damaged key',
    file: `${KEY}file = "damaged.private"\n`,
    says: [
      `postern.toml:4:8: signing.key[1].file: "damaged.private" is damaged: no key can be read from it; ${KEY_FORM}`,
    ],
  },
  {
    name: 'a key that DKIM has no algorithm for',
    file: `${KEY}file = "elliptic.private"\n`,
    says: [
      'postern.toml:4:8: signing.key[1].file: "elliptic.private" holds a key of type ec, which DKIM does not know; expected an RSA or Ed25519 key',
    ],
  },
  {
    name: 'a key that is too short',
    file: `${KEY}file = "short.private"\n`,
    says: [
      'postern.toml:4:8: signing.key[1].file: "short.private" is an RSA key of 768 bits, which is not accepted anywhere; expected 2048 bits or more',
    ],
  },
  {
    name: 'two keys under one name',
    file: `${KEY}file = "good.private"\n[[signing.key]]\ndomain = "EXAMPLE.org"\nselector = "mail"\nfile = "good.private"\n`,
    says: [
      'postern.toml:7:12: signing.key[2].selector: the key mail._domainkey.example.org is here a second time; remove it here or on line 3',
    ],
  },
  {
    name: 'the key itself in place of its file name',
    file: `${KEY}file = """-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIFsecretsecret\n-----END PRIVATE KEY-----"""\n`,
    says: [
      'postern.toml:4:8: signing.key[1].file: the text holds the control character \\u000A; expected text on one line',
    ],
  },
];

describe('every mistake is named with its place and its remedy', () => {
  test.each(MISTAKES)('$name', async ({ file, says }) => {
    const content = file.startsWith('latin1:') ? Buffer.from(file.slice('latin1:'.length), 'latin1') : file;
    expect(await mistakes(content)).toEqual(says);
  });
});

test('all mistakes of a file are named at once, in the order of the file, whatever they are', async () => {
  const file = [
    '[policyd]',
    'listen = 127.0.0.1:10040', // syntax
    '[milter]',
    'max_conections = 5', // unknown key
    'deadline = 100', // wrong type
    '[lmtp-filter]',
    'listen = "127.0.0.1:8891"', // taken by the milter's default
    '[rules]',
    'spf.fail = "rejct"', // bad value
    'spf.fial = "reject"', // unknown code
    '[thresholds]',
    'junk = 4', // contradiction
    '[[signing.key]]',
    'domain = "example.org"',
    'selector = "mail"',
    'file = "nowhere.private"', // missing file
    '[log',
    'level = "info"',
  ].join('\n');
  const places = (await mistakes(file)).map((line) => /^postern\.toml:(\d+:\d+):/.exec(line)?.[1]);
  expect(places).toEqual(['2:10', '4:1', '5:12', '7:10', '9:12', '10:5', '12:8', '16:8', '17:5']);
});

test('a line that can not be read does not make its key count as missing', async () => {
  const file = '[[signing.key]]\ndomain = example.org\nselector = "mail"\nfile = "good.private"\n';
  expect(await mistakes(file)).toEqual(['postern.toml:2:10: a text without quotes; write "example.org"']);
});

test('no message holds the text of a key', async () => {
  const secret = 'MC4CAQAwBQYDK2VwBCIEIFsecretsecret';
  const file = `${KEY}file = "-----BEGIN PRIVATE KEY-----${secret}"\n[log]\nlevel = "-----BEGIN PRIVATE KEY-----${secret}"\n`;
  const says = await mistakes(file);
  expect(says).toHaveLength(2);
  expect(says.join('\n')).not.toContain('secret');
  expect(says[1]).toContain('log.level: found the text of a key (not shown)');
});

test.each([
  ['no such file', 'nowhere.toml', "can't be read: it does not exist"],
  ['a folder', '.', "can't be read: it is not a regular file"],
])('%s instead of a configuration file', async (_, name, wrong) => {
  const path = join(folder, name);
  expect(await loadConfig(path)).toEqual({
    ok: false,
    problems: [
      {
        file: path,
        position: null,
        key: '',
        wrong,
        remedy: 'expected a TOML file; examples/postern.toml is one',
      },
    ],
  });
});

test('a named pipe instead of a configuration file is refused at once', async () => {
  const path = join(folder, 'pipe');
  execFileSync('sh', ['-c', 'mkfifo "$0"', path]);
  const result = await loadConfig(path);
  expect(result.ok ? null : result.problems[0]?.wrong).toBe("can't be read: it is not a regular file");
});
