import { describe, expect, it } from 'vitest';
import { z } from 'zod';

import type { CheckTools } from '../../../src/checks/check.ts';
import { CheckRun } from '../../../src/checks/runner.ts';
import { virusCheck } from '../../../src/checks/virus.ts';
import type { Message } from '../../../src/mail/message.ts';
import { NeighbourError } from '../../../src/ports/neighbour-error.ts';
import type { VirusAnswer, VirusScanner } from '../../../src/ports/virus-scanner.ts';
import type { Outcome } from '../../../src/verdict/finding.ts';
import { rejection } from '../../../src/verdict/replies.ts';
import { checkTools } from '../../support/checks.ts';
import { envelope, message } from '../../support/mail.ts';

interface Seen {
  text: string;
  patienceMs: number;
}

function scanner(answer: VirusAnswer | Error, seen: Seen = { text: '', patienceMs: 0 }): VirusScanner {
  return {
    begin(patienceMs) {
      seen.patienceMs = patienceMs;
      return {
        write(chunk) {
          seen.text += Buffer.from(chunk).toString('latin1');
          return undefined;
        },
        end: () => (answer instanceof Error ? Promise.reject(answer) : Promise.resolve(answer)),
      };
    },
    ping: async () => {},
  };
}

async function run(
  checked: Message,
  values: Partial<CheckTools>,
  options: unknown = {},
): Promise<readonly Outcome[]> {
  const { client, direction, sender, recipients } = checked.envelope;
  const checks = new CheckRun([virusCheck.bind(options, 1000)], checkTools(values), direction);
  const facts = { client, direction, sender };
  checks.startMail(facts);
  checks.startBody({ ...facts, recipients, headers: checked.headers });
  for await (const chunk of checked.body.chunks()) await checks.body(chunk);
  checks.startMessage({ ...facts, message: checked });
  return await checks.settle();
}

async function codes(answer: VirusAnswer, options: unknown = {}): Promise<readonly string[]> {
  const [outcome] = await run(message(), { virusScanner: scanner(answer) }, options);
  return outcome?.kind === 'found' ? outcome.findings.map(({ code }) => code) : ['unavailable'];
}

describe('the virus check', () => {
  it('gives the message as it came, header section first, in both directions', async () => {
    for (const direction of ['in', 'out'] as const) {
      const seen = { text: '', patienceMs: 0 };
      const headers = 'From: a\r\nSubject: x\r\n\ty\xe4\r\n';
      const checked = message({ headers, body: 'one\r\n', envelope: envelope({ direction }) });
      expect(await run(checked, { virusScanner: scanner({ kind: 'clean' }, seen) })).toMatchObject([
        { kind: 'found', findings: [] },
      ]);
      expect(seen).toEqual({ text: `${headers}\r\none\r\n`, patienceMs: 900 });
    }
  });

  it('takes no part without a scanner', async () => {
    expect(await run(message(), {})).toEqual([]);
  });

  it.each([
    [{ kind: 'clean' }, []],
    [{ kind: 'found', signature: 'Win.Test.EICAR_HDB-1' }, ['virus.found']],
    [{ kind: 'found', signature: 'Heuristics.Phishing.Email.SpoofedDomain' }, ['virus.heuristics']],
    [{ kind: 'found', signature: 'PUA.Win.Tool.Packed' }, ['virus.pua']],
    [{ kind: 'too-large' }, ['virus.too-large']],
    [{ kind: 'error', text: 'x' }, ['virus.error']],
    [{ kind: 'timeout' }, ['virus.timeout']],
  ] as const satisfies readonly (readonly [VirusAnswer, readonly string[]])[])(
    '%j is %j',
    async (answer, expected) => {
      expect(await codes(answer)).toEqual(expected);
    },
  );

  it('is unavailable when no scanner could be asked', async () => {
    const broken = scanner(new NeighbourError('down'));
    expect(await run(message(), { virusScanner: broken })).toMatchObject([
      { kind: 'unavailable', reason: 'neighbour', detail: 'down' },
    ]);
  });

  it('scans so much of a larger message as it may', async () => {
    // "A: 1", two line ends.
    const head = 8;
    const options = { max_size: '1KiB' };
    for (const [size, code] of [
      [1024 - head, []],
      [1025 - head, ['virus.too-large']],
    ] as const) {
      const seen = { text: '', patienceMs: 0 };
      const checked = message({ headers: 'A: 1\r\n', body: 'x'.repeat(size) });
      const [outcome] = await run(checked, { virusScanner: scanner({ kind: 'clean' }, seen) }, options);
      expect(outcome).toMatchObject({ kind: 'found' });
      expect(outcome?.kind === 'found' ? outcome.findings.map((finding) => finding.code) : null).toEqual(
        code,
      );
      expect(seen.text.length).toBe(1024);
    }
    const infected = scanner({ kind: 'found', signature: 'X' });
    const large = message({ body: 'x'.repeat(5000) });
    expect(await run(large, { virusScanner: infected }, options)).toMatchObject([
      { findings: [{ code: 'virus.found', detail: 'ClamAV found X' }] },
    ]);
  });

  it('calls signatures what the operator calls them: the first pattern that fits', async () => {
    const signatures = [
      { name: 'macros', pattern: '*.ContainsMacros*', action: 'quarantine' },
      { name: 'heuristics', pattern: 'heuristics.*', action: 'tag' },
    ];
    const macros = { kind: 'found', signature: 'Heuristics.OLE2.ContainsMacros.VBA' } as const;
    expect(await codes(macros, { signatures })).toEqual(['virus.macros']);
    expect(await codes({ kind: 'found', signature: 'HEURISTICS.X' }, { signatures })).toEqual([
      'virus.heuristics',
    ]);
    expect(await codes({ kind: 'found', signature: 'PUA.X' }, { signatures })).toEqual(['virus.found']);
    expect(virusCheck.bind({ signatures }, 1000).codes).toMatchObject({
      'virus.macros': { action: 'quarantine' },
      'virus.heuristics': { action: 'tag' },
      'virus.found': { action: 'reject' },
    });
  });

  it.each([
    [[{ name: 'found', pattern: '*' }]],
    [[{ name: 'Two Words', pattern: '*' }]],
    [[{ name: 'a', pattern: '' }]],
    [[{ name: 'a', pattern: 'x'.repeat(201) }]],
    [
      [
        { name: 'a', pattern: 'x' },
        { name: 'a', pattern: 'y' },
      ],
    ],
    [[{ name: 'a', pattern: 'x', action: 'allow' }]],
  ])('takes no signatures like %j', (signatures) => {
    expect(() => virusCheck.bind({ signatures }, 1000)).toThrow(z.ZodError);
  });

  it('refuses without a word on what was found', () => {
    for (const code of ['virus.found', 'virus.macros']) {
      const reply = rejection(code);
      expect(reply).toMatchObject({ code: 554, detail: '7.1' });
      expect(reply.text).toBe('This message was refused because of harmful content');
    }
  });
});
