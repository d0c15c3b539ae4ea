import fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import type { AuthResult } from '../../../src/mail/auth-results.ts';
import { mailFactsOf } from '../../../src/policyd/request.ts';
import { spfHeader, type SpfHeaderStyle } from '../../../src/policyd/spf-header.ts';
import { HEADER_LIMIT } from '../../../src/policyd/wire.ts';
import type { Outcome } from '../../../src/verdict/finding.ts';
import type { PolicyAttributes } from '../../support/players/policy-client.ts';
import { decoded, rcpt } from './support.ts';

function found(...results: AuthResult[]): Outcome[] {
  return [
    {
      kind: 'found',
      check: 'spf',
      findings: results.map((auth) => ({ code: `spf.${auth.result}`, detail: '', auth })),
      elapsed: 1,
    },
  ];
}

const MAILFROM: AuthResult = {
  method: 'spf',
  result: 'softfail',
  properties: [['smtp.mailfrom', 'thor@valhalla.example']],
};
const HELO: AuthResult = {
  method: 'spf',
  result: 'pass',
  properties: [['smtp.helo', 'odin.valhalla.example']],
};

function header(
  style: SpfHeaderStyle,
  outcomes: readonly Outcome[],
  changes: PolicyAttributes = {},
): string | null {
  const facts = mailFactsOf(decoded(rcpt(changes)), { has: () => false });
  return spfHeader({ style, authservId: 'olimpus.example', hostname: 'mx.olimpus.example' }, facts, outcomes);
}

describe('Received-SPF', () => {
  test('RFC 7208 §9.1, of MAIL FROM rather than HELO', () => {
    expect(header('received-spf', found(HELO, MAILFROM))).toBe(
      'Received-SPF: softfail receiver=mx.olimpus.example; identity=mailfrom; client-ip=192.0.2.20; ' +
        'envelope-from="thor@valhalla.example"; helo=odin.valhalla.example',
    );
  });

  test('of HELO when that is all there is', () => {
    expect(header('received-spf', found(HELO))).toMatch(/^Received-SPF: pass .*identity=helo;/);
  });

  test('an IPv6 address is no dot-atom', () => {
    expect(header('received-spf', found(MAILFROM), { client_address: '2001:db8::66' })).toContain(
      'client-ip="2001:db8::66"',
    );
  });

  test('the null path, and no HELO', () => {
    const line = header('received-spf', found(MAILFROM), { sender: '', helo_name: '' });
    expect(line).toMatch(/; envelope-from="<>"$/);
  });
});

test('Authentication-Results, all identities, on one line', () => {
  expect(header('authentication-results', found(HELO, MAILFROM))).toBe(
    'Authentication-Results: olimpus.example; spf=softfail smtp.mailfrom=thor@valhalla.example; ' +
      'spf=pass smtp.helo=odin.valhalla.example',
  );
});

function long(result: AuthResult, value: string, comment?: string): AuthResult {
  const properties = result.properties.map(([name]) => [name, value] as const);
  return comment === undefined ? { ...result, properties } : { ...result, properties, comment };
}

test('Authentication-Results that would be too long lose comments first, then HELO', () => {
  const commented = header(
    'authentication-results',
    found(long(MAILFROM, 'm'.repeat(300), 'c'.repeat(300)), long(HELO, 'h'.repeat(300), 'c'.repeat(300))),
  );
  expect(commented).not.toContain('(');
  expect(commented).toContain('smtp.helo=');
  const worst = header(
    'authentication-results',
    found(long(MAILFROM, '"'.repeat(320)), long(HELO, '"'.repeat(320))),
  );
  expect(worst).toContain('smtp.mailfrom=');
  expect(worst).not.toContain('smtp.helo=');
});

test.for(['received-spf', 'authentication-results', 'none'] as const)('nothing to say: %s', (style) => {
  expect(header(style, [])).toBeNull();
  expect(header(style, found({ method: 'dkim', result: 'pass', properties: [] }))).toBeNull();
  const unavailable: Outcome = {
    kind: 'unavailable',
    check: 'spf',
    reason: 'deadline',
    detail: '',
    elapsed: 1,
  };
  expect(header(style, [unavailable])).toBeNull();
});

test('none says nothing', () => {
  expect(header('none', found(MAILFROM))).toBeNull();
});

/** As it comes from the wire: a character per byte, without LF. */
function wireText(text: string): string {
  return Buffer.from(text).toString('latin1').replaceAll('\n', '');
}

describe('remote text can not break out', () => {
  test.for([
    ['a second key', 'x; identity=helo', 'helo="x; identity=helo"'],
    ['a quote', 'x"; client-ip=1.2.3.4; a="', 'helo="x\\"; client-ip=1.2.3.4; a=\\""'],
    ['a backslash at the end', 'x\\', 'helo="x\\\\"'],
    ['a line', 'x\rBcc: y', 'helo="x?Bcc: y"'],
    ['NUL and escape', 'x\0\x1b[2J', 'helo="x??[2J"'],
    ['8-bit', 'caf\xc3\xa9', 'helo="caf??"'],
    ['a comment', 'x (pass)', 'helo="x (pass)"'],
  ] as const)('%s', ([, helo, expected]) => {
    const line = header('received-spf', found(MAILFROM), { helo_name: helo });
    expect(line?.endsWith(`; ${expected}`)).toBe(true);
  });

  const QUOTED = '"(?:[^"\\\\]|\\\\["\\\\])*"';
  const ATOM = "[A-Za-z0-9!#$%&'*+\\-/=?^_`{|}~.]+";
  const RECEIVED_SPF = new RegExp(
    `^Received-SPF: softfail receiver=mx\\.olimpus\\.example; identity=mailfrom; client-ip=(?:${ATOM}|${QUOTED}); ` +
      `envelope-from=${QUOTED}(?:; helo=(?:${ATOM}|${QUOTED}))?$`,
  );
  const hostile = fc.oneof(
    fc.string({ unit: 'binary', maxLength: 2000 }),
    fc.string({
      unit: fc.constantFrom('"', '\\', ';', '=', ' ', 'x', '\r', '\0', '(', ')'),
      maxLength: 2000,
    }),
  );
  test('whatever HELO and sender hold: one line of the grammar, of bounded length', () => {
    fc.assert(
      fc.property(hostile, hostile, (helo, sender) => {
        const changes = { helo_name: wireText(helo), sender: wireText(sender) };
        const line = header('received-spf', found(MAILFROM), changes) ?? '';
        expect(line).toMatch(RECEIVED_SPF);
        expect(line).toMatch(/^[\x20-\x7e]+$/);
        expect(line.length).toBeLessThanOrEqual(HEADER_LIMIT);
        const auth: AuthResult = { ...MAILFROM, properties: [['smtp.mailfrom', changes.sender]] };
        const results = header('authentication-results', found(auth, HELO), changes) ?? '';
        expect(results).toMatch(
          /^Authentication-Results: olimpus\.example; spf=softfail smtp\.mailfrom=[\x20-\x7e]+$/,
        );
        expect(results.length).toBeLessThanOrEqual(HEADER_LIMIT);
        expect(results.replaceAll(new RegExp(QUOTED, 'g'), '').match(/spf=/g)?.length).toBeLessThanOrEqual(2);
      }),
      { numRuns: 500 },
    );
  });

  test('with the longest host names there are', () => {
    const facts = mailFactsOf(
      decoded(
        rcpt({ helo_name: '"'.repeat(2000), sender: '"'.repeat(2000), client_address: 'f'.repeat(2000) }),
      ),
      { has: () => false },
    );
    const hostname = 'h'.repeat(253);
    const line = spfHeader({ style: 'received-spf', authservId: hostname, hostname }, facts, found(MAILFROM));
    expect(line?.length).toBeGreaterThan(800);
    expect(line?.length).toBeLessThanOrEqual(HEADER_LIMIT);
  });
});
