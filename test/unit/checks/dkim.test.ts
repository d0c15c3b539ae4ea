import { createHash } from 'node:crypto';

import { describe, expect, test } from 'vitest';

import { createMailAuth } from '../../../src/adapters/mail-auth.ts';
import { dkimCheck } from '../../../src/checks/dkim.ts';
import type { DkimResult, DkimResultWord } from '../../../src/ports/mail-auth.ts';
import { Zone } from '../../support/zone.ts';
import { CLOCK, known, messageFacts, outcome, toolsWith } from './auth-facts.ts';

const WORDS: readonly DkimResultWord[] = ['pass', 'fail', 'policy', 'neutral', 'temperror', 'permerror'];

function result(word: DkimResultWord): DkimResult {
  return {
    result: word,
    domain: 'd.example',
    selector: 's',
    detail: `d=d.example s=s: ${word}`,
    auth: { method: 'dkim', result: word, properties: [['header.d', 'd.example']] },
  };
}

describe('dkim', () => {
  test('one finding for each signature, in their order', async () => {
    const tools = toolsWith({ dkim: () => known(WORDS.map(result)) });
    const found = await outcome(dkimCheck, { facts: messageFacts(), tools });
    const findings = WORDS.map((word) => ({
      code: `dkim.${word}`,
      detail: `d=d.example s=s: ${word}`,
      auth: { method: 'dkim', result: word, properties: [['header.d', 'd.example']] },
    }));
    expect(found).toMatchObject({ kind: 'found', findings });
  });

  test('an unsigned message', async () => {
    const tools = toolsWith({ dkim: () => known([]) });
    expect(await outcome(dkimCheck, { facts: messageFacts(), tools })).toMatchObject({
      findings: [{ code: 'dkim.none', auth: { method: 'dkim', result: 'none', properties: [] } }],
    });
  });

  test('every result has its code in the manual; nothing is done about any of them', () => {
    expect(Object.keys(dkimCheck.codes).toSorted()).toEqual(
      [...WORDS, 'none'].map((word) => `dkim.${word}`).toSorted(),
    );
    expect(new Set(Object.values(dkimCheck.codes).map(({ action }) => action))).toEqual(new Set(['ignore']));
  });

  test('a name server that is silent makes a temperror, not an outcome that is unavailable', async () => {
    const bh = createHash('sha256').update('Hail!\r\n').digest('base64');
    const headers = `DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=d.example; s=s; h=From; bh=${bh}; b=AAAA\r\nFrom: a@d.example\r\n`;
    const zone = new Zone({ 's._domainkey.d.example': 'never' });
    const tools = toolsWith(createMailAuth(zone, { hostname: 'mx.example', clock: CLOCK }));
    const found = await outcome(dkimCheck, { facts: messageFacts({ headers }), tools, deadlineMs: 500 });
    expect(found).toMatchObject({ kind: 'found', findings: [{ code: 'dkim.temperror' }] });
  });
});
