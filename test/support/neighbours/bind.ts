import { copyFile, writeFile } from 'node:fs/promises';
import { type PrivateFolder, privateFolder } from './folder.ts';
import { startDnsForwarder } from './dns-forwarder.ts';
import { freePort } from './ports.ts';
import { startProcess } from './process.ts';

const NOT_LOADED = /zone (\S+)\/IN: (?:not loaded|loading from master file .* failed)/;
/** In the root zone: every zone's name server has an address, or named would not load it. */
const NAME_SERVER = 'ns.invalid. A 127.0.0.1';
const MAX_CHARACTER_STRING = 255;

export interface BindOptions {
  /**
   * Zones by name (`''` or `'.'` is the root) in master file syntax. A text without SOA gets one, an NS and a $TTL of a
   * minute, so that `'@ TXT "v=spf1 -all"'` will do.
   */
  readonly zones: Readonly<Record<string, string>>;
  /** Further text for named.conf, for instance a zone that is forwarded to nowhere. */
  readonly extra?: string;
}

export interface Bind extends AsyncDisposable {
  readonly host: '127.0.0.1';
  readonly port: number;
  /** Also on port 53, on an address of its own, for programs that read resolv.conf. */
  readonly address: string;
  /** A file to be given as `resolvConf` to neighbours that should ask this server. */
  readonly resolvConf: string;
  /** Its private files, gone when it has stopped. */
  readonly folder: string;
  /** Replaces or adds a zone while the server runs; resolves when it answers from the new text. */
  setZone(name: string, text: string): Promise<void>;
  /** Packets reach it from now on, because the kernel takes them, and it answers none. */
  freeze(): void;
  thaw(): void;
  log(): string;
  /** A line of its log, from `after` (a mark) on. */
  waitForLog(pattern: RegExp, after?: number): Promise<string>;
  mark(): number;
  stop(): Promise<void>;
}

/** A private named: it knows its zones, and answers NXDOMAIN for the rest of the world. */
export async function startBind(options: BindOptions): Promise<Bind> {
  await using cleanup = new AsyncDisposableStack();
  const folder = cleanup.use(await privateFolder('bind'));
  const port = await freePort();
  const { address } = cleanup.use(await startDnsForwarder(port));
  const resolvConf = folder.join('resolv.conf');
  await writeFile(resolvConf, `nameserver ${address}\noptions timeout:2 attempts:1\n`);

  const zones = new Map([['.', NAME_SERVER]]);
  for (const [name, text] of Object.entries(options.zones)) zones.set(zoneName(name), text);
  const writeAll = () => writeConfig(folder, { port, zones, extra: options.extra ?? '' });
  await writeAll();

  // A copy: AppArmor on a Debian machine lets /usr/sbin/named itself read from /etc/bind only.
  const program = folder.join('named');
  await copyFile('/usr/sbin/named', program);
  const named = cleanup.use(
    startProcess(program, ['-g', '-n', '1', '-c', folder.join('named.conf'), '-X', 'none'], {
      name: 'named',
      cwd: folder.path,
    }),
  );
  await loaded(0);

  async function loaded(after: number): Promise<void> {
    await named.waitForLine(/all zones loaded/, { after });
    const lines = named.output().split('\n').slice(after);
    const failed = lines.findIndex((line) => NOT_LOADED.test(line));
    if (failed !== -1)
      throw new Error(`named: ${lines.slice(Math.max(0, failed - 1), failed + 1).join('\n')}`);
  }

  async function setZone(name: string, text: string): Promise<void> {
    zones.set(zoneName(name), text);
    await writeAll();
    const after = named.mark();
    named.signal('SIGHUP');
    // named says that all zones are loaded a moment before the last one is.
    const zone = zoneName(name).replaceAll('.', '\\.');
    await named.waitForLine(new RegExp(`zone ${zone}/IN: (?:loaded serial|not loaded|loading from)`), {
      after,
    });
    await loaded(after);
  }

  const owned = cleanup.move();
  return {
    host: '127.0.0.1',
    port,
    address,
    resolvConf,
    folder: folder.path,
    setZone,
    freeze: () => named.signal('SIGSTOP'),
    thaw: () => named.signal('SIGCONT'),
    log: () => named.output(),
    waitForLog: (pattern, after = 0) => named.waitForLine(pattern, { after }),
    mark: () => named.mark(),
    stop: () => owned.disposeAsync(),
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

/** A TXT record's data: any text as quoted strings of at most 255 bytes. */
export function txtData(text: string): string {
  const bytes = Buffer.from(text);
  const strings: string[] = [];
  for (let start = 0; start < bytes.length || start === 0; start += MAX_CHARACTER_STRING) {
    const piece = bytes.subarray(start, start + MAX_CHARACTER_STRING).toString('latin1');
    const escaped = piece.replaceAll(/["\\]|[^ -~]/g, (character) =>
      /[ -~]/.test(character) ? `\\${character}` : `\\${character.charCodeAt(0).toString().padStart(3, '0')}`,
    );
    strings.push(`"${escaped}"`);
  }
  return strings.join(' ');
}

interface Config {
  readonly port: number;
  readonly zones: ReadonlyMap<string, string>;
  readonly extra: string;
}

let lastSerial = 0;

async function writeConfig(folder: PrivateFolder, { port, zones, extra }: Config): Promise<void> {
  // named takes a zone with the same serial for unchanged.
  lastSerial += 1;
  const statements: string[] = [];
  for (const [name, text] of zones) {
    const file = folder.join(`zone-${name === '.' ? 'root' : name.replaceAll('/', '_')}`);
    await writeFile(file, zoneText(text, lastSerial));
    statements.push(`zone "${name}" { type primary; file "${file}"; };`);
  }
  const config = `
options {
  directory "${folder.path}";
  listen-on port ${port} { 127.0.0.1; };
  listen-on-v6 { none; };
  pid-file none;
  session-keyfile none;
  recursion yes;
  dnssec-validation no;
  empty-zones-enable no;
  notify no;
};
controls { };
${statements.join('\n')}
${extra}
`;
  await writeFile(folder.join('named.conf'), config);
}

function zoneName(name: string): string {
  return name === '' ? '.' : name;
}

function zoneText(text: string, serial: number): string {
  if (/\sSOA\s/i.test(text)) return text;
  const apex = `@ SOA ns.invalid. hostmaster.invalid. ${serial} 3600 600 86400 1\n@ NS ns.invalid.\n`;
  return `$TTL 60\n${apex}${text}\n`;
}
