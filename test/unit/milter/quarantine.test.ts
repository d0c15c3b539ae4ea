import { expect, test } from 'vitest';

import type { QuarantinedMail } from '../../../src/ports/quarantine.ts';
import { metric } from '../../support/metric.ts';
import { rig, type Rig } from './rig.ts';
import { CONNECT, DATA, EOH, EOM, HELO, MAIL, OFFER_V6, packet, RCPT, TRACE } from './support.ts';

const FOLDER = '[quarantine]\nwhere = "folder"\n';
const MESSAGE = [
  OFFER_V6,
  CONNECT,
  HELO,
  MAIL,
  RCPT,
  DATA,
  packet('D', 'L', 'i\0QID1\0'),
  packet('L', 'From\0 thor@valhalla.example\0'),
  packet('L', 'Authentication-Results\0 mx.olimpus.example; spf=pass\0'),
  EOH,
  packet('B', 'Hail!\r\n'),
];

interface Kept extends QuarantinedMail {
  readonly text: string;
}

/** A rig whose message is quarantined, and what was put away. */
async function odd(toml: string, store?: () => Promise<string>): Promise<{ at: Rig; kept: Kept[] }> {
  const kept: Kept[] = [];
  const at = await rig(toml, {
    released: () => Promise.resolve(null),
    async store(mail) {
      const chunks: Uint8Array[] = [];
      for await (const chunk of mail.body.chunks()) chunks.push(chunk);
      kept.push({ ...mail, text: Buffer.concat(chunks).toString('latin1') });
      return (await store?.()) ?? 'f00d';
    },
  });
  at.checks.message = () => Promise.resolve([{ code: 'spam.odd', detail: 'odd' }]);
  return { at, kept };
}

test('by default Postfix holds it, and nothing is put away', async () => {
  const { at, kept } = await odd('');
  expect(await at.say(...MESSAGE, EOM)).toContain('spam.odd (');
  expect(kept).toEqual([]);
});

test('with a folder it is put away as it would have left, and Postfix drops its copy', async () => {
  const { at, kept } = await odd(FOLDER);
  expect(await at.say(...MESSAGE, EOM)).toBe(packet('d').toString('latin1'));
  expect(kept).toHaveLength(1);
  expect(kept[0]).toMatchObject({
    daemon: 'milter',
    trace: TRACE,
    queueId: 'QID1',
    sender: 'thor@valhalla.example',
    recipients: ['zeus@olimpus.example'],
    rule: 'spam.odd',
    why: 'odd',
    text: 'Hail!\r\n',
  });
  expect(kept[0]?.came.serialize()).toContain('Authentication-Results: mx.olimpus.example; spf=pass');
  const leaves = kept[0]?.leaves.serialize() ?? '';
  expect(leaves).toMatch(
    /^Received: from odin\.valhalla\.example \(odin\.valhalla\.example \[192\.0\.2\.20\]\)\r\n\tby mx\.olimpus\.example/,
  );
  expect(leaves).toContain(`X-Postern-Trace: ${TRACE}`);
  expect(leaves).not.toContain('spf=pass');
  expect(at.tools.store.decisions[0]).toMatchObject({
    verdict: 'quarantine',
    reply: 'SMFIR_DISCARD (quarantined as f00d)',
  });
});

test('what can not be put away is deferred', async () => {
  const { at } = await odd(FOLDER, () => Promise.reject(new Error('disk full')));
  expect(await at.say(...MESSAGE, EOM)).toMatch(/451 4\.3\.0/);
  expect(at.tools.store.decisions[0]).toMatchObject({ verdict: 'defer', rule: 'failed:quarantine' });
  expect(await metric(at.tools.registry, 'postern_milter_errors_total', { kind: 'quarantine' })).toBe(1);
  expect(await at.counted('defer')).toBe(1);
  expect(await at.counted('quarantine')).toBe(0);
});

test('a message that the MTA gave up meanwhile gets no answer', async () => {
  const { at } = await odd(FOLDER, () => {
    at.session.abort();
    return Promise.resolve('f00d');
  });
  expect(await at.say(...MESSAGE, EOM)).toBeNull();
  expect(at.tools.store.decisions).toEqual([]);
});
