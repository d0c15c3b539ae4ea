import fc from 'fast-check';
import { expect, test } from 'vitest';

import { HeaderList } from '../../../src/mail/header.ts';
import { renderEdits, renderVerdict } from '../../../src/milter/render.ts';
import { encodeResponses, type Response } from '../../../src/milter/responses.ts';
import { applyEdits, type Edit } from '../../../src/verdict/edits.ts';
import type { Verdict } from '../../../src/verdict/verdict.ts';
import { accept } from '../../support/judgement.ts';
import { applyAsPostfix, type MilterEdit } from '../../support/players/milter-client.ts';
import { packet, TRACE, words } from './support.ts';

const HEADERS = new HeaderList([
  { name: 'Authentication-Results', value: ' mx.olimpus.example; spf=pass' },
  { name: 'Subject', value: ' greetings' },
  { name: 'authentication-results', value: ' mx.olimpus.example; dkim=pass' },
  { name: 'From', value: ' thor@valhalla.example' },
]);
const EDITS: readonly Edit[] = [
  { kind: 'delete', name: 'Authentication-Results', occurrence: 2 },
  { kind: 'delete', name: 'Authentication-Results', occurrence: 1 },
  { kind: 'replace', name: 'Subject', occurrence: 1, value: ' [SPAM] greetings' },
  { kind: 'insert', name: 'X-Spam-Flag', value: ' YES' },
  { kind: 'insert', name: 'Authentication-Results', value: ' mx.olimpus.example;\r\n\tspf=fail' },
];

test('deletions count from below, insertions come last, at the top, folded with line feeds', () => {
  expect(encodeResponses(renderEdits(HEADERS, EDITS, true))).toEqual(
    Buffer.concat([
      packet('m', words(2), 'authentication-results\0\0'),
      packet('m', words(1), 'Subject\0 [SPAM] greetings\0'),
      packet('m', words(1), 'Authentication-Results\0\0'),
      packet('i', words(0), 'X-Spam-Flag\0 YES\0'),
      packet('i', words(0), 'Authentication-Results\0 mx.olimpus.example;\n\tspf=fail\0'),
    ]),
  );
});

test('without SMFIP_HDR_LEADSPC exactly one space is left to the MTA', () => {
  const edits: Edit[] = [
    { kind: 'replace', name: 'Subject', occurrence: 1, value: '  two' },
    { kind: 'insert', name: 'X-Tab', value: '\ttab' },
    { kind: 'insert', name: 'X-None', value: 'none' },
    { kind: 'insert', name: 'X-One', value: ' one' },
  ];
  const values = renderEdits(HEADERS, edits, false).map((response) => 'value' in response && response.value);
  expect(values).toEqual([' two', '\ttab', 'none', 'one']);
});

test('a change to nothing is not a deletion', () => {
  for (const leadingSpace of [true, false]) {
    for (const value of ['', ' ']) {
      const edits: Edit[] = [{ kind: 'replace', name: 'Subject', occurrence: 1, value }];
      expect(renderEdits(HEADERS, edits, leadingSpace)).toEqual([
        { kind: 'change-header', index: 1, name: 'Subject', value: ' ' },
      ]);
    }
  }
});

test('what is inserted and deleted again is never told', () => {
  const edits: Edit[] = [
    { kind: 'insert', name: 'Subject', value: ' mine' },
    { kind: 'delete', name: 'Subject', occurrence: 1 },
    { kind: 'delete', name: 'Subject', occurrence: 5 },
  ];
  expect(renderEdits(HEADERS, edits, true)).toEqual([]);
});

function asMilterEdits(responses: readonly Response[]): MilterEdit[] {
  return responses.map((response): MilterEdit => {
    switch (response.kind) {
      case 'insert-header':
        return { action: 'insert', index: 0, name: response.name, value: response.value };
      case 'change-header':
        return { action: 'change', index: response.index, name: response.name, value: response.value };
      case 'add-header':
        return { action: 'add', index: 0, name: response.name, value: response.value };
      case 'add-recipient':
      case 'replace-body':
      case 'quarantine':
      case 'reply':
      case 'continue':
      case 'discard':
        throw new Error(`${response.kind} is no edit`);
    }
  });
}

/** Sendmail: a deleted field keeps its number. */
function applyAsSendmail(
  headers: readonly (readonly [string, string])[],
  edits: readonly MilterEdit[],
): [string, string][] {
  const result: [string, string | null][] = headers.map(([name, value]) => [name, value]);
  for (const { action, index, name, value } of edits) {
    if (action === 'insert') result.unshift([name, value]);
    else if (action === 'add') result.push([name, value]);
    else {
      const places = result.flatMap(([field], place) =>
        field.toLowerCase() === name.toLowerCase() ? [place] : [],
      );
      const place = places[index - 1];
      if (place !== undefined) result[place] = [name, value === '' ? null : value];
    }
  }
  return result.flatMap(([name, value]) => (value === null ? [] : [[name, value]]));
}

const name = fc.constantFrom('Subject', 'subject', 'X-Spam-Flag', 'Authentication-Results', 'From');
const value = fc.constantFrom(' one', ' two', ' three', '  wide', ' folded\r\n\ttwice\r\n more');
const fields = fc.array(fc.record({ name, value }), { maxLength: 8 });
const edit = fc.oneof(
  fc.record({ kind: fc.constant('insert' as const), name, value }),
  fc.record({ kind: fc.constant('delete' as const), name, occurrence: fc.integer({ min: 1, max: 4 }) }),
  fc.record({
    kind: fc.constant('replace' as const),
    name,
    occurrence: fc.integer({ min: 1, max: 4 }),
    value,
  }),
);

test('Postfix does with our modifications what applyEdits does with the edits', () => {
  fc.assert(
    fc.property(fields, fc.array(edit, { maxLength: 10 }), fc.boolean(), (list, edits, leadingSpace) => {
      const headers = new HeaderList(list);
      const wanted = applyEdits(headers, edits)
        .toArray()
        .map((field) => [field.name, field.value]);
      const pairs = list.map((field): [string, string] => [field.name, field.value]);
      const told = asMilterEdits(renderEdits(headers, edits, leadingSpace));
      const wire = told.map((one) => ({ ...one, value: one.value.replaceAll('\r\n', '\n') }));
      expect(applyAsPostfix(pairs, wire, leadingSpace)).toEqual(wanted);
    }),
    { numRuns: 2000 },
  );
});

test('Sendmail, which does not close the gap of a deleted field, comes to the same', () => {
  fc.assert(
    fc.property(fields, fc.array(edit, { maxLength: 10 }), (list, edits) => {
      const headers = new HeaderList(list);
      const wanted = applyEdits(headers, edits).toArray();
      const pairs = list.map((field): [string, string] => [field.name, field.value]);
      const left = applyAsSendmail(pairs, asMilterEdits(renderEdits(headers, edits, true)));
      expect(left).toEqual(wanted.map((field) => [field.name, field.value]));
    }),
    { numRuns: 1000 },
  );
});

test('ten thousand forged fields are deleted without delay', () => {
  const headers = new HeaderList(
    Array.from({ length: 10_000 }, () => ({
      name: 'Authentication-Results',
      value: ' mx.olimpus.example; none',
    })),
  );
  const edits = Array.from({ length: 10_000 }, (_, index): Edit => ({
    kind: 'delete',
    name: 'Authentication-Results',
    occurrence: 10_000 - index,
  }));
  const begun = performance.now();
  expect(renderEdits(headers, edits, true)).toHaveLength(10_000);
  expect(performance.now() - begun).toBeLessThan(500);
});

/** What is sent, and what log and record say of it. */
function render(verdict: Verdict): [string, string] {
  const { bytes, text } = renderVerdict(
    verdict,
    TRACE,
    HEADERS,
    [{ kind: 'insert', name: 'X', value: ' x' }],
    true,
  );
  return [bytes.toString('latin1'), text];
}

test('verdicts in the words of the protocol', () => {
  const edits = packet('i', words(0), 'X\0 x\0').toString('latin1');
  const go = packet('c').toString('latin1');
  expect(render(accept())).toEqual([edits + go, 'SMFIR_CONTINUE']);
  expect(render({ ...accept(), kind: 'junk' })).toEqual([edits + go, 'SMFIR_CONTINUE']);
  expect(render({ ...accept({ rule: 'dmarc.fail' }), kind: 'quarantine' })).toEqual([
    edits + packet('q', `dmarc.fail (${TRACE})\0`).toString('latin1') + go,
    `SMFIR_QUARANTINE dmarc.fail (${TRACE})`,
  ]);
  expect(render({ ...accept(), kind: 'discard' })).toEqual([packet('d').toString('latin1'), 'SMFIR_DISCARD']);
  const reply = { code: 550, detail: '7.1', text: '100% spam' } as const;
  expect(render({ ...accept(), kind: 'reject', reply })).toEqual([
    packet('y', `550 5.7.1 100%% spam (${TRACE})\0`).toString('latin1'),
    `550 5.7.1 100% spam (${TRACE})`,
  ]);
  const later = { code: 451, detail: '7.0', text: 'later' } as const;
  expect(render({ ...accept(), kind: 'defer', reply: later })).toEqual([
    packet('y', `451 4.7.0 later (${TRACE})\0`).toString('latin1'),
    `451 4.7.0 later (${TRACE})`,
  ]);
});

test('copies come first, and no bounce of them goes to the sender', () => {
  const go = packet('c').toString('latin1');
  const copied = (addresses: readonly string[], parameters: boolean): [string, string] => {
    const { bytes, text } = renderVerdict(accept(), TRACE, HEADERS, [], true, null, {
      addresses,
      parameters,
    });
    return [bytes.toString('latin1'), text];
  };
  expect(copied(['a@b.example', 'c@d.example'], true)).toEqual([
    packet('2', '<a@b.example>\0NOTIFY=NEVER\0').toString('latin1') +
      packet('2', '<c@d.example>\0NOTIFY=NEVER\0').toString('latin1') +
      go,
    'SMFIR_CONTINUE (copy to a@b.example, c@d.example)',
  ]);
  expect(copied(['a@b.example'], false)[0]).toBe(packet('+', '<a@b.example>\0').toString('latin1') + go);
  const reply = { code: 550, detail: '7.1', text: 'no' } as const;
  const refused = renderVerdict({ ...accept(), kind: 'reject', reply }, TRACE, HEADERS, [], true, null, {
    addresses: ['a@b.example'],
    parameters: true,
  });
  expect(refused.bytes.toString('latin1') + refused.text).not.toContain('a@b.example');
});

test('a new body comes in pieces of at most 65,535 octets, all in a row behind the edits', () => {
  const edits: Edit[] = [{ kind: 'insert', name: 'X-A', value: ' 1' }];
  const pieces = (length: number): [string, number][] => {
    const body = '\xe9'.repeat(length);
    const { bytes } = renderVerdict(accept(), TRACE, HEADERS, edits, true, body);
    const packets: [string, number][] = [];
    for (let at = 0; at < bytes.length; at += 4 + bytes.readUInt32BE(at))
      packets.push([bytes.toString('latin1', at + 4, at + 5), bytes.readUInt32BE(at) - 1]);
    return packets.filter(([code]) => code !== 'i');
  };
  expect(pieces(65_535)).toEqual([
    ['b', 65_535],
    ['c', 0],
  ]);
  expect(pieces(65_536)).toEqual([
    ['b', 65_535],
    ['b', 1],
    ['c', 0],
  ]);
  expect(pieces(0)).toEqual([['c', 0]]);
});
