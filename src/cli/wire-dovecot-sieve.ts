import { basename, dirname, posix } from 'node:path';

import type { Config } from '../config/config.ts';

/** A Sieve script that the lines of dovecot.conf name. */
export interface SieveFile {
  readonly name: string;
  readonly content: string;
}

/** How mail that is junk comes into the junk folder. */
export const FILINGS = ['header', 'detail', 'folder'] as const;

export type Filing = (typeof FILINGS)[number];

/** Where the scripts stand unless --write says otherwise. */
export const SIEVE_FOLDER = '/etc/dovecot/sieve';

/** Below which Dovecot looks for sieve_pipe_socket_dir, whatever that says (Dovecot 2.3). */
const BASE_DIR = '/run/dovecot';

/**
 * The script that files what Postern has marked: by its score, or by a rule for another finding. Postern takes both fields away
 * from mail that brings its own.
 */
function filingScript(junk: string, filing: Exclude<Filing, 'folder'>): SieveFile {
  const detail = filing === 'detail';
  const extensions = ['fileinto', 'mailbox', ...(detail ? ['envelope', 'subaddress'] : [])];
  const tests = [
    'header :is "X-Spam-Flag" "YES"',
    'header :matches "X-Postern-Verdict" ["junk;*", "quarantine;*"]',
    ...(detail ? [`envelope :detail :is "to" "${junk}"`] : []),
  ];
  const content = `require [${extensions.map((name) => `"${name}"`).join(', ')}];
if anyof (${tests.join(', ')}) {
  fileinto :create "${junk}";
  stop;
}
`;
  return { name: 'postern.sieve', content };
}

/** The scripts that are run when a user moves mail. Dovecot tells the program who that is. */
function feedbackScripts({ file }: Config): readonly SieveFile[] {
  const { junk, trash, listen } = file.feedback;
  const program = basename(listen.path);
  const elsewhere = [...trash, junk].map((folder) => `"${folder}"`).join(', ');
  return [
    {
      name: 'postern-spam.sieve',
      content: `require ["copy", "imapsieve", "vnd.dovecot.pipe"];
pipe :copy "${program}" ["spam"];
`,
    },
    {
      name: 'postern-ham.sieve',
      content: `require ["copy", "environment", "imapsieve", "vnd.dovecot.pipe"];
# Thrown away, or copied within the folder: that says nothing.
if not environment :is "imap.mailbox" [${elsewhere}] {
  pipe :copy "${program}" ["ham"];
}
`,
    },
  ];
}

/** The lines of dovecot.conf (2.3) by which Dovecot tells what users move into the junk folder and out of it. */
export function feedbackLines(config: Config, folder: string): string[] {
  const { enabled, listen, junk } = config.file.feedback;
  if (!enabled) {
    return ['# Moves into the junk folder and out of it teach nothing: feedback.enabled is not set.', ''];
  }
  const [spam, ham] = feedbackScripts(config).map(({ name }) => `${folder}/${name}`);
  return [
    '# Moves into the junk folder and out of it are told to Postern: [feedback]. Needs the Sieve plugin (Debian: dovecot-sieve).',
    `# The IMAP processes must be able to write to ${listen.path}: see feedback.group and feedback.mode.`,
    ...(group(config) ?? []),
    'protocol imap {',
    '  mail_plugins = $mail_plugins imap_sieve',
    '}',
    'plugin {',
    '  sieve_plugins = sieve_imapsieve sieve_extprograms',
    '  sieve_global_extensions = +vnd.dovecot.pipe +vnd.dovecot.environment',
    `  # From base_dir (${BASE_DIR}) on: Dovecot 2.3 takes no absolute path here.`,
    `  sieve_pipe_socket_dir = ${posix.relative(BASE_DIR, dirname(listen.path)) || '.'}`,
    '  # Into the junk folder: spam. By a move, a copy, or a client that files it itself.',
    `  imapsieve_mailbox1_name = ${junk}`,
    '  imapsieve_mailbox1_causes = COPY APPEND',
    `  imapsieve_mailbox1_before = file:${spam ?? ''}`,
    '  # Out of it: not spam, unless it is thrown away.',
    '  imapsieve_mailbox2_name = *',
    `  imapsieve_mailbox2_from = ${junk}`,
    '  imapsieve_mailbox2_causes = COPY',
    `  imapsieve_mailbox2_before = file:${ham ?? ''}`,
    '}',
    '',
  ];
}

function group({ file }: Config): string[] | null {
  if (file.feedback.group !== null) return null;
  return [
    '# feedback.group is not set: it should name the group of the users of your mailboxes, such as "vmail".',
  ];
}

/** The lines that file junk. */
export function filingLines(filing: Filing, folder: string): string[] {
  switch (filing) {
    case 'folder':
      return [
        '# What comes for USER+FOLDER goes to that folder of USER, without Sieve, and the folder is made when it is missing.',
        'recipient_delimiter = +',
        'lmtp_save_to_detail_mailbox = yes',
        'lda_mailbox_autocreate = yes',
        '',
      ];
    case 'detail':
    case 'header':
      return [
        '# Mail that is marked as spam, or judged to be junk, goes to the junk folder, before the scripts of the users are run.',
        ...(filing === 'detail' ? ['# So does what comes for USER+Junk.', 'recipient_delimiter = +'] : []),
        'protocol lmtp {',
        '  mail_plugins = $mail_plugins sieve',
        '}',
        'plugin {',
        `  sieve_before = ${folder}/postern.sieve`,
        '}',
        '',
      ];
  }
}

/** All scripts that the lines name. */
export function sieveFiles(config: Config, filing: Filing): readonly SieveFile[] {
  const { enabled, junk } = config.file.feedback;
  return [
    ...(filing === 'folder' ? [] : [filingScript(junk, filing)]),
    ...(enabled ? feedbackScripts(config) : []),
  ];
}

/** The scripts as a comment, each between lines that say where it begins and ends. */
export function shownFiles(files: readonly SieveFile[], folder: string): string[] {
  return files.flatMap(({ name, content }) => [
    `# ---- begin ${folder}/${name} ----`,
    ...content
      .trimEnd()
      .split('\n')
      .map((line) => `#   ${line}`),
    `# ---- end ${folder}/${name} ----`,
    '',
  ]);
}
