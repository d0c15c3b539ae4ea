import { writeFile } from 'node:fs/promises';

import { expect, test } from 'vitest';

import { readAliases, targetsOf } from '../../src/adapters/directory-tables.ts';
import { expandAliases } from '../../src/adapters/virtual-aliases.ts';
import { privateFolder } from '../support/neighbours/folder.ts';
import { startPostfix } from '../support/neighbours/postfix.ts';
import { run } from '../support/neighbours/process.ts';
import { letter } from '../support/site.ts';
import { describeWithNeighbours } from '../support/with-neighbours.ts';

/** Everything that virtual(5) knows, as an operator may write it. */
const TABLE = String.raw`# aliases of the gods
One@Olimpus.example     zeus@olimpus.example
two@olimpus.example     zeus@olimpus.example, hera@olimpus.example
three@olimpus.example   zeus@olimpus.example,
    # in between
    hera@olimpus.example

    ares@olimpus.example
spaces@olimpus.example  zeus@olimpus.example hera@olimpus.example
names@olimpus.example   Father of Gods <zeus@olimpus.example>, "A. Queen" <hera@olimpus.example>
comment@olimpus.example zeus@olimpus.example (the old one), hera@olimpus.example
quoted@olimpus.example  "all gods"@olimpus.example
"all gods"@olimpus.example ares@olimpus.example
ext+special@olimpus.example special@olimpus.example
ext@olimpus.example     plain@olimpus.example, other@asgard.example
chain@olimpus.example   link@olimpus.example
link@olimpus.example    one@olimpus.example
self@olimpus.example    self@olimpus.example, archive@olimpus.example
SELF2@olimpus.example   Self2@olimpus.example, archive@olimpus.example
@hellas.example         @olimpus.example
@catch.example          catch@olimpus.example
special@catch.example   special@olimpus.example
first@olimpus.example   zeus@olimpus.example
first@olimpus.example   hera@olimpus.example
dup@olimpus.example     zeus@olimpus.example, zeus@olimpus.example
`;

const ADDRESSES = [
  'one@olimpus.example',
  'ONE+news@OLIMPUS.example',
  'two@olimpus.example',
  'three@olimpus.example',
  'spaces@olimpus.example',
  'names@olimpus.example',
  'comment@olimpus.example',
  'quoted@olimpus.example',
  'ext+special@olimpus.example',
  'ext+other@olimpus.example',
  'ext@olimpus.example',
  'chain@olimpus.example',
  'chain+deep@olimpus.example',
  'self@olimpus.example',
  'self+tag@olimpus.example',
  'self2@olimpus.example',
  'zeus@hellas.example',
  'zeus+news@hellas.example',
  'two@hellas.example',
  'any@catch.example',
  'any+tag@catch.example',
  'special@catch.example',
  'special+tag@catch.example',
  'first@olimpus.example',
  'dup@olimpus.example',
  'nobody@olimpus.example',
];

describeWithNeighbours('aliases', () => {
  test('lead where Postfix delivers', async () => {
    await using folder = await privateFolder('aliases');
    const path = folder.join('virtual');
    await writeFile(path, TABLE);
    const domains = ['olimpus.example', 'hellas.example', 'catch.example', 'asgard.example'];
    await using postfix = await startPostfix({
      domains,
      mailboxes: domains.map((domain) => `@${domain}`),
      // The table that postmap(1) makes: of two entries with one key it keeps the first, where texthash is unavailable altogether.
      main: { virtual_alias_maps: `hash:${path}` },
    });
    const made = await run('postmap', [`hash:${path}`], { env: { MAIL_CONFIG: postfix.configDirectory } });
    expect(made).toMatchObject({ code: 0 });
    const table = await readAliases(TABLE);
    expect(table.faults).toBeNull();

    for (const [index, address] of ADDRESSES.entries()) {
      const from = `case-${index}@valhalla.example`;
      const after = postfix.mark();
      await postfix.sendmail(letter({}), { from, to: [address] });
      const line = await postfix.waitForLog(new RegExp(`qmgr\\[\\d+\\]: \\w+: from=<${from}>`), { after });
      const id = /: (\w+): from=/.exec(line)?.[1] ?? '';
      await postfix.waitForLog(new RegExp(`: ${id}: removed$`), { after });
      const delivered = postfix
        .log()
        .split('\n')
        .flatMap((entry) => new RegExp(`: ${id}: to=<([^>]*)>`).exec(entry)?.[1] ?? []);
      const expanded = expandAliases(address, (key) => targetsOf(table, key), '+') ?? [];
      // Postfix delivers once to an address that comes out twice, and folds domains.
      const ours = new Set(
        expanded.map((target) => target.replace(/@.*$/, (domain) => domain.toLowerCase())),
      );
      const theirs = delivered.map((target) =>
        target.replaceAll('"', '').replace(/@.*$/, (domain) => domain.toLowerCase()),
      );
      expect({ address, to: [...ours].toSorted() }).toEqual({ address, to: [...new Set(theirs)].toSorted() });
    }
  });
});
