import { createHash, generateKeyPairSync } from 'node:crypto';

import { Registry } from 'prom-client';
import { expect, test } from 'vitest';

import { arcTable, sealingOf, signingOf, signingTable } from '../../../src/config/signing.ts';
import { HeaderList } from '../../../src/mail/header.ts';
import { ArcFinisher } from '../../../src/milter/arc-finisher.ts';
import { DkimFinisher } from '../../../src/milter/dkim-finisher.ts';
import type { Finisher } from '../../../src/milter/finisher.ts';
import { milterMetrics } from '../../../src/milter/metrics.ts';
import type { SigningKey } from '../../../src/ports/signing-keys.ts';
import { heldKeys } from '../../support/signing-keys.ts';

const KEY: SigningKey = {
  domain: 'olimpus.example',
  selector: 's',
  subdomains: false,
  algorithm: 'rsa-sha256',
  key: generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey,
};
const SOURCE = heldKeys(KEY);

function dkim(): Finisher {
  const signing = signingOf(signingTable.parse({}), '/');
  return new DkimFinisher(
    signing,
    Promise.resolve({ kind: 'usable', keys: [KEY] }),
    milterMetrics(new Registry()),
  );
}

function arc(): Finisher {
  const sealing = sealingOf(arcTable.parse({ domain: KEY.domain }), signingTable.parse({}));
  if (sealing === null) throw new Error('nothing is sealed');
  return new ArcFinisher(sealing, 'mx.example', Promise.resolve(true), SOURCE, milterMetrics(new Registry()));
}

test.each([
  ['DKIM', dkim, 'DKIM-Signature'],
  ['ARC', arc, 'ARC-Message-Signature'],
] as const)('%s: what stands in place of the body that came is what is signed', async (_, make, name) => {
  for (const newBody of [null, 'A report.\r\n']) {
    const finisher = make();
    finisher.body(Buffer.from('What came.\r\n'));
    const fields = await finisher.finish({
      headers: new HeaderList([{ name: 'From', value: ' zeus@olimpus.example' }]),
      newBody,
      outcomes: [],
      timeSeconds: 1,
    });
    const value = fields.find((field) => field.name === name)?.value ?? '';
    const hash = createHash('sha256')
      .update(newBody ?? 'What came.\r\n')
      .digest('base64');
    expect(/bh=([^;]+);/.exec(value)?.[1]).toBe(hash);
  }
});
