import { describe, expect, test } from 'vitest';

import { arcCheck } from '../../../src/checks/arc.ts';
import type { ArcResult } from '../../../src/ports/mail-auth.ts';
import { known, messageFacts, outcome, toolsWith } from './auth-facts.ts';

const HOPS: ArcResult['hops'] = [
  { instance: 2, sealer: 'big.example', signer: 'big.example', results: ' i=2; big.example; arc=pass' },
  { instance: 1, sealer: 'lists.example', signer: 'lists.example', results: ' i=1; lists.example; spf=pass' },
];

function arcOf(values: Partial<ArcResult>): ArcResult {
  return { result: 'pass', detail: 'why', hops: HOPS, oldestPass: null, ...values };
}

async function found(result: ArcResult, options: unknown = {}): Promise<unknown> {
  const tools = toolsWith({ arc: () => known(Promise.resolve(result)) });
  return outcome(arcCheck, { facts: messageFacts(), tools, options });
}

describe('arc', () => {
  test.each(['none', 'pass', 'fail', 'temperror'] as const)('%s has its code', async (result) => {
    expect(await found(arcOf({ result }))).toMatchObject({
      kind: 'found',
      findings: [{ code: `arc.${result}` }],
    });
  });

  test('every code is in the manual; nothing is done about any of them', () => {
    expect(Object.keys(arcCheck.codes)).toEqual(['arc.pass', 'arc.fail', 'arc.temperror', 'arc.none']);
    expect(new Set(Object.values(arcCheck.codes).map(({ action }) => action))).toEqual(new Set(['ignore']));
  });

  test('RFC 8617 §6: what Authentication-Results says', async () => {
    expect(await found(arcOf({ oldestPass: 1 }))).toMatchObject({
      findings: [
        {
          auth: {
            method: 'arc',
            result: 'pass',
            comment: 'why',
            properties: [
              ['smtp.remote-ip', '192.0.2.20'],
              ['header.oldest-pass', '1'],
            ],
          },
        },
      ],
    });
    expect(await found(arcOf({ result: 'none' }))).toMatchObject({
      findings: [{ auth: { method: 'arc', result: 'none', properties: [] } }],
    });
  });

  test('RFC 8617 §5.2.1: to others a key that is not there just now is a failure', async () => {
    expect(await found(arcOf({ result: 'temperror' }))).toMatchObject({
      findings: [{ auth: { result: 'fail' } }],
    });
  });

  test('what trusted sealers say is kept, down to the first who is not', async () => {
    const results = [{ method: 'arc', result: 'pass', properties: [] }];
    const big = { sealer: 'big.example', instance: 2, results };
    expect(await found(arcOf({}), { trusted_sealers: ['big.example'] })).toMatchObject({
      findings: [{ sealed: [big] }],
    });
    const both = { trusted_sealers: ['lists.example', 'big.example'] };
    expect(await found(arcOf({}), both)).toMatchObject({ findings: [{ sealed: [big, { instance: 1 }] }] });
    for (const [result, trusted] of [
      ['pass', ['lists.example']],
      ['pass', []],
      ['fail', ['big.example']],
    ] as const) {
      const made = await found(arcOf({ result }), { trusted_sealers: trusted });
      expect(JSON.stringify(made)).not.toContain('sealed');
    }
  });

  test.each(['Lists.example', 'lists', 'lists.example.', '*.example', ''])('%j is no sealer', (sealer) => {
    expect(() => arcCheck.bind({ trusted_sealers: [sealer] }, 1000)).toThrow('as it stands in d=');
  });
});
