import { isUtf8 } from 'node:buffer';
import { resolve } from 'node:path';

import { shown, type Problem } from './errors.ts';
import { readSmallFile } from './files.ts';
import type { TomlNode, TomlTable } from './toml.ts';

/** What an entry of a list begins with that stands for all lines of a file. */
const PREFIX = 'file:';

/** Octets of one file of lines. */
export const LIST_FILE_LIMIT = 16 * 1024 * 1024;

/**
 * Puts the lines of a file in the place of an entry `"file:PATH"` of a list, wherever a list of texts stands: blocked senders are often kept by another program,
 * one to a line. Empty lines and those that begin with `#` do not count. What is wrong with a line is reported at the entry.
 */
export async function readListFiles(name: string, root: TomlTable, folder: string): Promise<Problem[]> {
  const problems: Problem[] = [];
  const visit = async (node: TomlNode, path: string): Promise<void> => {
    switch (node.kind) {
      case 'scalar':
        return;
      case 'table':
        for (const [key, entry] of node.entries) await visit(entry, path === '' ? key : `${path}.${key}`);
        return;
      case 'list': {
        if (!node.items.some(namesFile)) {
          for (const [index, item] of node.items.entries()) await visit(item, `${path}[${index + 1}]`);
          return;
        }
        const items: TomlNode[] = [];
        for (const item of node.items) {
          if (!namesFile(item)) {
            items.push(item);
            continue;
          }
          const file = resolve(folder, String(item.value).slice(PREFIX.length));
          const reading = await linesOf(file);
          if (reading.ok) {
            // One by one: as many arguments as a large file has lines do not fit on the stack.
            for (const value of reading.lines) items.push({ ...item, value });
          } else {
            const wrong = `${shown(file)} can't be used: ${reading.detail}`;
            const remedy = 'expected a file of lines, one value each';
            problems.push({ file: name, position: item.at, key: path, wrong, remedy });
          }
        }
        node.items.splice(0, node.items.length);
        for (const item of items) node.items.push(item);
      }
    }
  };
  await visit(root, '');
  return problems;
}

function namesFile(node: TomlNode): node is Extract<TomlNode, { kind: 'scalar' }> {
  return node.kind === 'scalar' && typeof node.value === 'string' && node.value.startsWith(PREFIX);
}

type Lines =
  { readonly ok: true; readonly lines: readonly string[] } | { readonly ok: false; readonly detail: string };

async function linesOf(path: string): Promise<Lines> {
  const reading = await readSmallFile(path, LIST_FILE_LIMIT);
  if (!reading.ok) return reading;
  if (!isUtf8(reading.octets)) return { ok: false, detail: 'it is not UTF-8' };
  const lines = reading.octets
    .toString('utf8')
    .split('\n')
    .map((line) => line.trim());
  return { ok: true, lines: lines.filter((line) => line !== '' && !line.startsWith('#')) };
}
