const OVERVIEW = `Postern: policy server, milter and LMTP filter for Postfix and Dovecot.

Usage: postern COMMAND [ARGUMENTS]

  run      run the daemons
  check    check the configuration and say what it sets up
  wire     print the lines that Postfix or Dovecot needs
  import   make a configuration of OpenDKIM's
  history  look up what was decided about messages, and why
  learn    say that messages are spam, or that they are not
  limits   show how much of the limits is used, and forget it
  quota    say how full a mailbox is, and whether it takes a message
  directory  say where mail for an address goes, and what is set for it
  logins   show who tried too many passwords, and forget it
  keys     make signing keys, compare them with DNS, and change them in time
  quarantine  list, show, release and delete quarantined mail
  store    check the stores, copy the state between SQLite and Redis, make a backup
  sender   show which logins may not send, block and release them

  postern COMMAND --help   more about one command
  postern --version        the version

The configuration is the file of --config; without it postern.toml in the current folder, else
/etc/postern/postern.toml, else the built-in defaults.
`;

const RUN = `Usage: postern run [policyd] [milter] [lmtp-filter] [--config FILE] [--admin ADDRESS|none]

Runs the named daemons in one process, or all three. The log goes to standard output.

  --config FILE    configuration file
  --admin ADDRESS  where metrics and health are served, in place of the configuration's [admin] listen:
                   host:port, unix:/path, or none

SIGHUP reads the configuration again; SIGTERM and SIGINT stop at safe points.
Exit status: 0 stopped, 64 wrong use, 78 configuration not usable, 1 anything else.
`;

const CHECK = `Usage: postern check [--config FILE]

Reads the configuration with the keys it names. Prints every mistake with file, line and column, or a summary of
what it sets up. Opens no socket and changes nothing.

Exit status: 0 usable, 78 not usable, 64 wrong use.
`;

const WIRE = `Usage: postern wire postfix|dovecot [--config FILE]
       postern wire dovecot [--filing header|detail|folder] [--write FOLDER] [--config FILE]

Prints the lines that connect Postfix (main.cf and master.cf) or Dovecot 2.3 with the daemons of this configuration.
Changes nothing but the files of --write.

  --filing header   Sieve files what Postern has marked as junk (the default)
  --filing detail   Sieve files what comes for USER+Junk, too
  --filing folder   Dovecot itself files what comes for USER+Junk, without Sieve
  --write FOLDER    the Sieve scripts, and the lines as 99-postern.conf, are written into this folder, which must be
                    there; files that differ are replaced
`;

const IMPORT = `Usage: postern import opendkim FILE [--out FILE]

Reads an opendkim.conf with its KeyTable, SigningTable and InternalHosts, and prints the configuration that signs the
same mail with the same keys. What can't be taken over is told on stderr, with file and line.

  --out FILE   write it there; the file must not exist yet

Exit status: 0 done, 1 a file can't be read or written, 64 wrong use.
`;

const HELP: Readonly<Record<string, string>> = {
  '': OVERVIEW,
  run: RUN,
  check: CHECK,
  wire: WIRE,
  import: IMPORT,
};

/** The help of a command; undefined when it has its own. */
export function helpText(command: string): string | undefined {
  return HELP[command];
}
