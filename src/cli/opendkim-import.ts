import { dirname } from 'node:path';

import { networkSet } from '../checks/networks.ts';
import { domain, fieldName, formatSocketAddress, nameServer, parseSocketAddress } from '../config/values.ts';
import {
  ImportError,
  readDataSet,
  readParameters,
  type DataSet,
  type Parameter,
  type Place,
} from './opendkim-conf.ts';
import { importSources } from './opendkim-databases.ts';
import { convertTables, type ImportedKey, type ImportedTables } from './opendkim-tables.ts';

export interface Imported {
  /** A postern.toml. */
  readonly toml: string;
  /** What could not be taken over, or differs, in the order in which it was found. */
  readonly reports: readonly { readonly place: Place; readonly what: string }[];
}

/** Of no use here, and nothing is lost without them. */
const NOT_NEEDED: Readonly<Record<string, string>> = {
  autorestart: "restarts are the service manager's",
  autorestartrate: "restarts are the service manager's",
  background: 'the program stays in the foreground',
  basedirectory: 'paths are written out in full',
  changerootdirectory: 'a matter of the service manager',
  externalignorelist: 'it silences a log line that there is not here',
  logwhy: 'every decision has its reason in the history',
  multiplesignatures: 'it is for a SigningTable',
  pidfile: 'a matter of the service manager',
  requiresafekeys: 'always so',
  senderheaders: 'From is what counts',
  syslog: 'the log is standard output',
  syslogfacility: 'the log is standard output',
  syslogname: 'the log is standard output',
  syslogsuccess: 'every message has its line',
  temporarydirectory: 'no such files are written',
  trustanchorfile: 'a matter of the name server',
  userid: 'a matter of the service manager: the user that runs Postern must own the keys',
};

/** Rules of `dkim.*` for the On-… parameters. */
const EVENTS: Readonly<Record<string, string>> = {
  'on-badsignature': 'dkim.fail',
  'on-dnserror': 'dkim.temperror',
  'on-keynotfound': 'dkim.permerror',
  'on-nosignature': 'dkim.none',
};

const ACTIONS: Readonly<Record<string, string>> = {
  a: 'ignore',
  accept: 'ignore',
  d: 'discard',
  discard: 'discard',
  q: 'quarantine',
  quarantine: 'quarantine',
  r: 'reject',
  reject: 'reject',
  t: 'defer',
  tempfail: 'defer',
};

/** An opendkim.conf as our configuration. @throws {ImportError} when the file itself can't be read */
export async function importOpendkim(path: string): Promise<Imported> {
  const importer = new Importer(await readParameters(path), dirname(path));
  return await importer.run();
}

class Importer {
  readonly #parameters = new Map<string, Parameter>();
  readonly #reports: { readonly place: Place; readonly what: string }[] = [];
  /** Keys by table, as TOML writes them. */
  readonly #tables = new Map<string, string[]>();
  readonly #folder: string;

  constructor(parameters: readonly Parameter[], folder: string) {
    // Of a parameter that is there twice, OpenDKIM takes the last.
    for (const parameter of parameters) this.#parameters.set(parameter.name.toLowerCase(), parameter);
    this.#folder = this.#parameters.get('basedirectory')?.value ?? folder;
  }

  async run(): Promise<Imported> {
    const signs = (this.#take('mode')?.value ?? 'sv').includes('s');
    const tables = signs ? await this.#keys() : { keys: [], table: [] };
    if (this.#parameters.get('mode')?.value === 's') this.#put('checks.dkim', 'enabled', 'false');
    this.#form();
    this.#socket();
    await this.#fieldNames();
    await this.#networks();
    this.#authservId();
    this.#nameServers();
    this.#events();
    await this.#macros();
    this.#senderHeaders();
    for (const [name, parameter] of this.#parameters) {
      const why = NOT_NEEDED[name];
      this.#report(
        parameter,
        `${parameter.name}: ${why === undefined ? 'has no counterpart' : `not needed, ${why}`}`,
      );
    }
    return { toml: this.#toml(tables), reports: this.#reports };
  }

  #toml({ keys, table }: ImportedTables): string {
    const parts = [
      '# Made from an opendkim.conf by "postern import opendkim". "postern check" says what it sets up.\n',
    ];
    for (const [name, lines] of this.#tables)
      parts.push(`[${name}]\n${lines.map((line) => `${line}\n`).join('')}`);
    for (const key of keys) parts.push(keyToml(key));
    for (const { senders, keys: names } of table)
      parts.push(`[[signing.table]]\nsenders = ${list(senders)}\nkeys = ${list(names)}\n`);
    return parts.join('\n');
  }

  /** Looks at a parameter for the one time that it counts. */
  #take(name: string): Parameter | undefined {
    const parameter = this.#parameters.get(name);
    this.#parameters.delete(name);
    return parameter;
  }

  #put(table: string, key: string, value: string): void {
    const lines = this.#tables.get(table) ?? [];
    lines.push(`${key} = ${value}`);
    this.#tables.set(table, lines);
  }

  #report(place: Place, what: string): void {
    this.#reports.push({ place: { file: place.file, line: place.line }, what });
  }

  async #dataSet(parameter: Parameter): Promise<DataSet | null> {
    try {
      return await readDataSet(parameter);
    } catch (error) {
      if (!(error instanceof ImportError)) throw error;
      this.#report(error.place, `${parameter.name}: ${error.message}`);
      return null;
    }
  }

  async #keys(): Promise<ImportedTables> {
    const [keyTable, signingTable] = [this.#take('keytable'), this.#take('signingtable')];
    const [names, selector, file, subdomains] = ['domain', 'selector', 'keyfile', 'subdomains'].map((name) =>
      this.#take(name),
    );
    if (keyTable !== undefined) {
      for (const ignored of [names, selector, file])
        if (ignored !== undefined) this.#report(ignored, `${ignored.name}: the KeyTable stands in its place`);
      if (signingTable === undefined) {
        this.#report(keyTable, 'KeyTable: without a SigningTable no key is used');
        return { keys: [], table: [] };
      }
      const source = importSources(keyTable, signingTable, (name) => this.#take(name));
      if (source !== null) {
        for (const { name, lines } of source.tables)
          for (const [key, value] of lines) this.#put(name, key, value);
        for (const { place, what } of source.reports) this.#report(place, what);
        return { keys: [], table: [] };
      }
      const [keys, senders] = [await this.#dataSet(keyTable), await this.#dataSet(signingTable)];
      if (keys === null || senders === null) return { keys: [], table: [] };
      this.#put('signing', 'table_only', 'true');
      const multiple = this.#take('multiplesignatures');
      const all = isTrue(multiple);
      if (all) this.#put('signing', 'table_match', quoted('all'));
      if (all && multiple !== undefined)
        this.#report(
          multiple,
          'MultipleSignatures: the keys of all lines that fit sign, each once, as opendkim.conf(5) has it; opendkim 2.11 leaves out those between the first line and the last',
        );
      return convertTables(keys, senders, all, this.#folder, (place, what) => this.#report(place, what));
    }
    if (names === undefined || selector === undefined || file === undefined) return { keys: [], table: [] };
    if (isTrue(subdomains)) this.#put('signing', 'subdomains', 'true');
    const keys: ImportedKey[] = [];
    for (const { key, ...place } of (await this.#dataSet(names))?.elements ?? []) {
      if (domain().safeParse(key).success)
        keys.push({ domain: key, selector: selector.value, file: file.value });
      else this.#report(place, `Domain: "${key}" is not one domain; name each as [[signing.key]]`);
    }
    return { keys, table: [] };
  }

  #form(): void {
    const canonicalization = this.#take('canonicalization');
    // opendkim.conf(5): the default is simple, for either.
    const [header = 'simple', body = 'simple'] = (canonicalization?.value ?? 'simple')
      .toLowerCase()
      .split('/');
    const words = [header, body];
    if (words.every((word) => word === 'relaxed' || word === 'simple')) {
      this.#put('signing', 'canonicalization', quoted(`${header}/${body}`));
    } else if (canonicalization !== undefined) {
      this.#report(canonicalization, `Canonicalization: "${canonicalization.value}" is none`);
    }
    const lifetime = this.#take('signaturettl');
    if (lifetime !== undefined && lifetime.value !== '0') {
      if (/^\d{1,9}$/.test(lifetime.value)) this.#put('signing', 'expire', quoted(`${lifetime.value}s`));
      else this.#report(lifetime, `SignatureTTL: "${lifetime.value}" is no number of seconds`);
    }
  }

  #socket(): void {
    const [socket, mask] = [this.#take('socket'), this.#take('umask')];
    if (socket === undefined) return;
    const text = socket.value.replace(/^(?:local|unix):/, '');
    const [, port = '', host = ''] = /^inet6?:(\d+)(?:@\[?([^\]]+)\]?)?$/.exec(text) ?? [];
    // Without a host it listens on all addresses.
    const bound = host === '' ? (text.startsWith('inet6') ? '::' : '0.0.0.0') : host;
    const ours = text.startsWith('/')
      ? `unix:${text}`
      : bound.includes(':')
        ? `[${bound}]:${port}`
        : `${bound}:${port}`;
    const address = parseSocketAddress(ours);
    if (address === null) {
      this.#report(socket, `Socket: "${socket.value}" can't be read`);
      return;
    }
    this.#put('milter', 'listen', quoted(formatSocketAddress(address)));
    if (address.kind !== 'unix' || mask === undefined) return;
    if (/^[0-7]{1,4}$/.test(mask.value)) {
      const mode = 0o777 & ~Number.parseInt(mask.value, 8) & 0o666;
      this.#put('milter', 'mode', quoted(`0${mode.toString(8).padStart(3, '0')}`));
    } else {
      this.#report(mask, `UMask: "${mask.value}" is not octal`);
    }
  }

  async #fieldNames(): Promise<void> {
    const oversign = this.#take('oversignheaders');
    const names = oversign === undefined ? null : await this.#dataSet(oversign);
    if (oversign === undefined || names === null) return;
    const wanted = names.elements.map(({ key }) => key.replace(/^\+/, ''));
    if (wanted.every((name) => fieldName().safeParse(name).success))
      this.#put('signing', 'oversign', list(wanted));
    else this.#report(oversign, 'OversignHeaders: these are not all names of fields');
  }

  async #networks(): Promise<void> {
    const hosts = this.#take('internalhosts');
    const set = hosts === undefined ? null : await this.#dataSet(hosts);
    if (set === null) return;
    const networks: string[] = [];
    for (const { key, ...place } of set.elements) {
      if (networkSet().safeParse([key]).success) networks.push(key);
      else
        this.#report(
          place,
          `InternalHosts: "${key}" is no address and no network; clients are known by address alone here, or by their login`,
        );
    }
    this.#put('site', 'own_networks', list(networks));
  }

  #authservId(): void {
    const id = this.#take('authservid');
    if (id === undefined || id.value === 'HOSTNAME') return;
    if (domain().safeParse(id.value).success) this.#put('site', 'authserv_id', quoted(id.value));
    else this.#report(id, `AuthservID: "${id.value}" is not a domain name`);
  }

  #nameServers(): void {
    const servers = this.#take('nameservers');
    if (servers === undefined) return;
    const addresses = servers.value.split(',').map((address) => address.trim());
    if (addresses.every((address) => nameServer().safeParse(address).success))
      this.#put('dns', 'servers', list(addresses));
    else this.#report(servers, 'Nameservers: these are not all IP addresses');
  }

  #events(): void {
    for (const [name, code] of Object.entries(EVENTS)) {
      const event = this.#take(name);
      if (event === undefined) continue;
      const action = ACTIONS[event.value.toLowerCase()];
      if (action === undefined) this.#report(event, `${event.name}: "${event.value}" is no action`);
      else this.#put('rules', quoted(code), quoted(action));
    }
  }

  /** Mail from listeners that Postfix calls ORIGINATING is outgoing anyhow. */
  async #macros(): Promise<void> {
    const macros = this.#take('macrolist');
    const set = macros === undefined ? null : await this.#dataSet(macros);
    for (const { key, value, ...place } of set?.elements ?? []) {
      const text = value === '' ? key : `${key}=${value}`;
      if (!/^\{?daemon_name\}?[|=]ORIGINATING$/.test(text))
        this.#report(
          place,
          `MacroList: "${text}" has no counterpart; logins, own_networks and {daemon_name} ORIGINATING make mail outgoing`,
        );
    }
  }

  #senderHeaders(): void {
    const headers = this.#parameters.get('senderheaders');
    if (headers === undefined || headers.value.toLowerCase() === 'from') return;
    this.#parameters.delete('senderheaders');
    this.#report(headers, 'SenderHeaders: the author (From) chooses the key, or see signing.identity');
  }
}

function keyToml({ domain: name, selector, file }: ImportedKey): string {
  return `[[signing.key]]\ndomain = ${quoted(name)}\nselector = ${quoted(selector)}\nfile = ${quoted(file)}\n`;
}

/** JSON's strings are basic strings of TOML, too. */
function quoted(text: string): string {
  return JSON.stringify(text);
}

function list(texts: readonly string[]): string {
  return `[${texts.map(quoted).join(', ')}]`;
}

function isTrue(parameter: Parameter | undefined): boolean {
  return parameter !== undefined && /^(?:yes|true|on|1)$/i.test(parameter.value);
}
