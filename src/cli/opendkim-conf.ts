import { dirname, resolve } from 'node:path';

import { readSmallFile } from '../config/files.ts';

/** Where something was said. */
export interface Place {
  readonly file: string;
  /** Counts from 1. */
  readonly line: number;
}

/** One parameter of opendkim.conf(5). */
export interface Parameter extends Place {
  /** As it is documented, whatever its case was. */
  readonly name: string;
  readonly value: string;
}

/** One element of a data set; `value` is empty where there is none. */
export interface Element extends Place {
  readonly key: string;
  readonly value: string;
}

export interface DataSet {
  /** `pattern`: a refile, whose keys are patterns and whose order counts. */
  readonly kind: 'list' | 'pattern';
  readonly elements: readonly Element[];
}

/** What can't be read; the message is for the operator. */
export class ImportError extends Error {
  readonly place: Place;

  constructor(place: Place, message: string) {
    super(message);
    this.name = 'ImportError';
    this.place = place;
  }
}

const FILE_LIMIT = 4 * 1024 * 1024;

/** opendkim.conf(5), Include: nesting is allowed to five levels. */
const NESTING_LIMIT = 5;

/** The parameters in their order, those of included files in their place. @throws {ImportError} */
export async function readParameters(path: string, depth = 0): Promise<readonly Parameter[]> {
  const parameters: Parameter[] = [];
  for (const { text, ...place } of await contentLines(path, { file: path, line: 1 })) {
    const [, name = '', value = ''] = /^(\S+)\s*(.*)$/.exec(text) ?? [];
    if (name.toLowerCase() !== 'include') {
      parameters.push({ ...place, name, value });
    } else if (depth >= NESTING_LIMIT) {
      throw new ImportError(place, `more than ${NESTING_LIMIT} levels of Include`);
    } else {
      parameters.push(...(await readParameters(resolve(dirname(path), value), depth + 1)));
    }
  }
  return parameters;
}

/** opendkim(8), DATA SETS. @throws {ImportError} for kinds that are not files or lists, and files that can't be read */
export async function readDataSet({ value, ...place }: Parameter): Promise<DataSet> {
  const [, kind = '', rest = ''] = /^([a-z]+):(.*)$/.exec(value) ?? ['', '', value];
  switch (kind) {
    case 'file':
      return { kind: 'list', elements: await readElements(rest, place) };
    case 'refile':
      return { kind: 'pattern', elements: await readElements(rest, place) };
    case 'csl':
      return { kind: 'list', elements: listed(rest, place) };
    case '':
      if (value.endsWith('.db')) break;
      if (/^\.{0,2}\//.test(value)) return { kind: 'list', elements: await readElements(value, place) };
      return { kind: 'list', elements: listed(value, place) };
    default:
      break;
  }
  throw new ImportError(
    place,
    `a data set of the kind "${kind || 'db'}" can't be read here; write it to a file`,
  );
}

async function readElements(path: string, from: Place): Promise<readonly Element[]> {
  const lines = await contentLines(resolve(dirname(from.file), path), from);
  return lines.map(({ text, ...place }) => {
    const [, key = '', value = ''] = /^(\S+)\s*(.*)$/.exec(text) ?? [];
    return { ...place, key, value };
  });
}

function listed(text: string, place: Place): readonly Element[] {
  return text
    .split(',')
    .map((item) => item.trim())
    .filter((item) => item !== '')
    .map((item) => {
      const equals = item.indexOf('=');
      return equals === -1
        ? { ...place, key: item, value: '' }
        : { ...place, key: item.slice(0, equals), value: item.slice(equals + 1) };
    });
}

/** Lines without comments and white space around them, but for those that are empty then. */
async function contentLines(
  path: string,
  from: Place,
): Promise<readonly (Place & { readonly text: string })[]> {
  const reading = await readSmallFile(path, FILE_LIMIT);
  if (!reading.ok) throw new ImportError(from, `${path} can't be read: ${reading.detail}`);
  return reading.octets
    .toString('utf8')
    .split('\n')
    .map((line, index) => ({ file: path, line: index + 1, text: (line.split('#')[0] ?? '').trim() }))
    .filter(({ text }) => text !== '');
}
