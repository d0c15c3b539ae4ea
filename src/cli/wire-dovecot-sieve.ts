import { basename, dirname, posix } from 'node:path';

import type { Config } from '../config/config.ts';
import type { Filing } from '../config/upstream.ts';
import type { LabelKind } from '../ports/store.ts';

/** A Sieve script that the lines of dovecot.conf name. */
export interface SieveFile {
  readonly name: string;
  readonly content: string;
  /** A program that Dovecot runs. */
  readonly executable?: true;
}

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
    // Whoever has a threshold for junk has mail below it in the inbox, marked or not.
    'allof (header :is "X-Spam-Flag" "YES", not header :matches "X-Postern-Verdict" "tag;*")',
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

const KEEPER = 'postern-keep';
/** Messages that may wait in the spool. */
const SPOOL_LIMIT = 1000;

/** How a script tells Postern, in lines of its own. A program that does not answer is an error in Dovecot's log, and the script goes on. */
function telling({ file }: Config, label: LabelKind): readonly string[] {
  const program = basename(file.feedback.listen.path);
  if (file.feedback.spool === null) return [`pipe :copy "${program}" ["${label}"];`];
  return [
    `if not execute :pipe "${program}" ["${label}"] {`,
    `  execute :pipe "${KEEPER}" ["${label}"];`,
    '}',
  ];
}

/** What Dovecot runs for each message while Postern does not answer; it writes what would have gone to the socket (Dovecot's script protocol). */
function keeper(
  spool: string,
  { max_size: size, max_waiting: waiting }: Config['file']['feedback'],
): SieveFile {
  const most = Math.max(1, Math.min(SPOOL_LIMIT, Math.floor(waiting / size)));
  const content = `#!/bin/sh
# Keeps what a user says of a message until Postern takes it. Dovecot runs it as the owner of the mailbox.
PATH=/usr/bin:/bin
umask 077
case $1 in spam | ham) said=$1 ;; *) exit 64 ;; esac
cd '${spool}' || exit 75
# No more than ${most}, of ${size} octets each: feedback.max_waiting, feedback.max_size.
set -- *.kept
[ -e "$1" ] || shift
[ $# -lt ${most} ] || exit 75
new=$(mktemp .new-XXXXXXXXXXXXXXXX) || exit 75
trap 'rm -f "$new"' EXIT
{
  printf 'VERSION\\tscript\\t4\\t0\\nenv_USER=%s\\n-\\n%s\\n\\n' "$USER" "$said"
  head -c ${size + 1}
} > "$new" || exit 75
# Dovecot writes all of the message.
cat > /dev/null
# The folder's group is one that Postern is in.
chmod 0640 "$new" && mv "$new" "\${new#.new-}.kept" || exit 75
`;
  return { name: KEEPER, content, executable: true };
}

/** The scripts that are run when a user moves mail. Dovecot tells the program who that is. */
function feedbackScripts(config: Config): readonly SieveFile[] {
  const { junk, trash, spool } = config.file.feedback;
  const extension = spool === null ? '"vnd.dovecot.pipe"' : '"vnd.dovecot.execute"';
  const copy = spool === null ? '"copy", ' : '';
  const elsewhere = [...trash, junk].map((folder) => `"${folder}"`).join(', ');
  return [
    {
      name: 'postern-spam.sieve',
      content: `require [${copy}"imapsieve", ${extension}];
${telling(config, 'spam').join('\n')}
`,
    },
    {
      name: 'postern-ham.sieve',
      content: `require [${copy}"environment", "imapsieve", ${extension}];
# Thrown away, or copied within the folder: that says nothing.
if not environment :is "imap.mailbox" [${elsewhere}] {
${telling(config, 'ham')
  .map((line) => `  ${line}`)
  .join('\n')}
}
`,
    },
  ];
}

/** The lines of dovecot.conf (2.3) by which Dovecot tells what users move into the junk folder and out of it. */
export function feedbackLines(config: Config, folder: string): string[] {
  const { enabled, listen, junk, spool } = config.file.feedback;
  if (!enabled) {
    return ['# Moves into the junk folder and out of it teach nothing: feedback.enabled is not set.', ''];
  }
  const socketFolder = posix.relative(BASE_DIR, dirname(listen.path)) || '.';
  const extension = spool === null ? 'pipe' : 'execute';
  const [spam, ham] = feedbackScripts(config).map(({ name }) => `${folder}/${name}`);
  return [
    '# Moves into the junk folder and out of it are told to Postern: [feedback]. Needs the Sieve plugin (Debian: dovecot-sieve).',
    `# The IMAP processes must be able to write to ${listen.path}: see feedback.group and feedback.mode.`,
    ...(group(config) ?? []),
    ...(spool === null
      ? ['# feedback.spool is not set: what users say while Postern does not answer is lost.']
      : []),
    'protocol imap {',
    '  mail_plugins = $mail_plugins imap_sieve',
    '}',
    'plugin {',
    '  sieve_plugins = sieve_imapsieve sieve_extprograms',
    `  sieve_global_extensions = +vnd.dovecot.${extension} +vnd.dovecot.environment`,
    `  # From base_dir (${BASE_DIR}) on: Dovecot 2.3 takes no absolute path here.`,
    `  sieve_${extension}_socket_dir = ${socketFolder}`,
    ...(spool === null
      ? []
      : [
          `  # ${KEEPER} in it keeps in ${spool} what can't be told.`,
          `  sieve_${extension}_bin_dir = ${folder}`,
        ]),
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
  const { enabled, junk, spool } = config.file.feedback;
  return [
    ...(filing === 'folder' ? [] : [filingScript(junk, filing)]),
    ...(enabled ? feedbackScripts(config) : []),
    ...(enabled && spool !== null ? [keeper(spool, config.file.feedback)] : []),
  ];
}

/** The scripts as a comment, each between lines that say where it begins and ends. */
export function shownFiles(files: readonly SieveFile[], folder: string): string[] {
  return files.flatMap(({ name, content, executable }) => [
    ...(executable === true ? ['# A program: chmod 0755.'] : []),
    `# ---- begin ${folder}/${name} ----`,
    ...content
      .trimEnd()
      .split('\n')
      .map((line) => `#   ${line}`),
    `# ---- end ${folder}/${name} ----`,
    '',
  ]);
}
