import { afterAll, beforeAll, expect, it } from 'vitest';

import type { SpamdAddress } from '../../src/adapters/spamd-exchange.ts';
import { createSpamd } from '../../src/adapters/spamd.ts';
import { CheckRun } from '../../src/checks/runner.ts';
import { spamCheck } from '../../src/checks/spam.ts';
import type { Message } from '../../src/mail/message.ts';
import type { SpamScan } from '../../src/mail/spam-scan.ts';
import type { ScanRequest, SpamScanner } from '../../src/ports/scanner.ts';
import { decide } from '../../src/verdict/decide.ts';
import { applyEdits, messageEdits } from '../../src/verdict/edits.ts';
import { checkTools } from '../support/checks.ts';
import { rules, scanned } from '../support/judgement.ts';
import { client, envelope, message } from '../support/mail.ts';
import { run } from '../support/neighbours/process.ts';
import { startSpamd, type Spamd } from '../support/neighbours/spamd.ts';
import { describeWithNeighbours } from '../support/with-neighbours.ts';

const GTUBE = 'XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X\r\n';
const HEADERS =
  'From: thor@valhalla.example\r\nTo: zeus@olimpus.example\r\nSubject: h\xc3\xa4mmer\r\n' +
  'Message-ID: <20261121.1@valhalla.example>\r\nDate: Sat, 21 Nov 2026 10:00:00 +0000\r\n';

function scannerAt(spamd: Spamd, kind: 'tcp' | 'unix' = 'tcp'): SpamScanner {
  return scannerOf([kind === 'tcp' ? address(spamd) : { kind, path: spamd.socketPath }]);
}

function scannerOf(addresses: readonly SpamdAddress[], timeoutMs = 30_000): SpamScanner {
  const limits = { maxConcurrent: 2, connectTimeoutMs: 5000, timeoutMs, maxResponse: 1_048_576 };
  const clock = { now: () => Date.now(), elapsed: () => performance.now() };
  return createSpamd({ addresses, ...limits, changed: () => {} }, clock);
}

function request(shown: Message, values: Partial<ScanRequest> = {}): ScanRequest {
  return {
    message: shown,
    preamble: [],
    hide: () => false,
    bodyOctets: shown.body.size,
    user: null,
    wanted: 'fields',
    ...values,
  };
}

function address(one: Spamd): SpamdAddress {
  return { kind: 'tcp', host: one.host, port: one.port };
}

function deadline(): AbortSignal {
  return AbortSignal.timeout(60_000);
}

function scan(spamd: Spamd, scannedMessage: Message): Promise<SpamScan> {
  return scannerAt(spamd).scan(request(scannedMessage), deadline());
}

/** The scan of the check itself, with what it shows above the message. */
async function checked(spamd: Spamd, checkedMessage: Message): Promise<SpamScan> {
  const tools = checkTools({ scanner: scannerAt(spamd) });
  const checks = new CheckRun([spamCheck.bind({}, 60_000)], tools, 'in');
  const { client: from, direction, sender } = checkedMessage.envelope;
  checks.startMessage({ client: from, direction, sender, message: checkedMessage });
  const [outcome] = await checks.settle();
  const made = outcome?.kind === 'found' ? outcome.findings[0]?.scan : undefined;
  if (made === undefined) throw new Error(`no scan: ${JSON.stringify(outcome)}`);
  return made;
}

describeWithNeighbours('spamd', () => {
  let spamd: Spamd;
  let wrapping: Spamd;

  beforeAll(async () => {
    [spamd, wrapping] = await Promise.all([startSpamd(), startSpamd({ localCf: ['report_safe 1'] })]);
  });

  afterAll(async () => {
    await Promise.all([spamd.stop(), wrapping.stop()]);
  });

  it('answers ping, over TCP and over its unix socket', async () => {
    await expect(scannerAt(spamd).ping(deadline())).resolves.toBeUndefined();
    await expect(scannerAt(spamd, 'unix').ping(deadline())).resolves.toBeUndefined();
  });

  it('knows GTUBE', async () => {
    const made = await scan(spamd, message({ headers: HEADERS, body: GTUBE }));
    expect(made.score).toBeGreaterThanOrEqual(999);
    expect(made.required).toBe(5);
    expect(made.rules).toContain('GTUBE');
    expect(made.fields.map(({ name }) => name)).toEqual([
      'X-Spam-Checker-Version',
      'X-Spam-Flag',
      'X-Spam-Level',
      'X-Spam-Status',
      'X-Spam-Report',
    ]);
  });

  it('takes every byte of a message, and large ones in pieces', async () => {
    const bytes = Buffer.from(Array.from({ length: 256 }, (_, code) => code));
    const lines = Buffer.concat([bytes.filter((code) => code !== 10 && code !== 13), Buffer.from('\r\n')]);
    const body = Array.from({ length: 1600 }, () => lines);
    // A length that is wrong by one octet is answered with an error.
    const made = await scan(spamd, message({ headers: HEADERS, body }));
    expect(made.required).toBe(5);
  });

  it('gives no more than its own fields with report_safe 1, where the others are those of a wrapper', async () => {
    const made = await scan(wrapping, message({ headers: HEADERS, body: GTUBE }));
    expect(made.score).toBeGreaterThanOrEqual(999);
    for (const { name } of made.fields) expect(name).toMatch(/^X-Spam-(?!Prev-)/);
    expect(made.rules).toContain('GTUBE');
  });

  it('is shown the last hop, so that it looks at the client', async () => {
    const blind = await scan(spamd, message({ headers: HEADERS }));
    expect(blind.rules).toContain('NO_RELAYS');
    const odin = client({ address: '8.8.8.8', name: null, helo: 'odin.valhalla.example' });
    const seen = await checked(spamd, message({ headers: HEADERS, envelope: envelope({ client: odin }) }));
    expect(seen.rules).not.toContain('NO_RELAYS');
    expect(seen.rules).not.toContain('NO_RECEIVED');
    // "unknown" in the place of the name.
    expect(seen.rules).toContain('RDNS_NONE');
    const local = client({ address: '127.0.0.1', name: 'localhost', helo: 'localhost' });
    const trusted = await checked(
      spamd,
      message({ headers: HEADERS, envelope: envelope({ client: local }) }),
    );
    expect(trusted.rules).toContain('ALL_TRUSTED');
    expect(trusted.score).toBeLessThan(seen.score);
  });

  it('reads that hop right for IPv6 and for a client that writes its HELO as an address', async () => {
    for (const values of [
      { address: '2001:4860:4860::8888', helo: 'dns.google', name: null },
      { address: '8.8.8.8', helo: '[8.8.8.8]', name: null },
      { address: '8.8.8.8', helo: 'x]) by evil (', name: null },
    ]) {
      const made = await checked(
        spamd,
        message({ headers: HEADERS, envelope: envelope({ client: client(values) }) }),
      );
      expect(made.rules).toContain('RDNS_NONE');
      expect(made.rules).not.toContain('UNPARSEABLE_RELAY');
    }
  });

  it('gives a user the very fields that spamc would have given', async () => {
    for (const body of [GTUBE, 'Hail!\r\n']) {
      const { port, host } = spamd;
      const input = Buffer.from(`${HEADERS}\r\n${body}`, 'latin1');
      const spamc = await run('spamc', ['-d', host, '-p', String(port), '--headers'], { input });
      const theirs = spamc.stdout.split('\r\n\r\n')[0]?.split(/\r\n(?![\t ])/) ?? [];

      const shown = message({ headers: HEADERS, body });
      const outcomes = [scanned(await scan(spamd, shown))];
      const own = rules();
      const edits = messageEdits({
        headers: shown.headers,
        outcomes,
        verdict: decide(outcomes, own),
        rules: own,
        authservId: 'mx.olimpus.example',
        otherAuthservIds: [],
        hostname: 'mx.olimpus.example',
        trace: 'abcdefghijklmnop',
        daemon: 'milter',
      });
      const ours = Buffer.from(applyEdits(shown.headers, edits).serialize(), 'latin1')
        .toString()
        .split(/\r\n(?![\t ])/)
        .filter((field) => field !== '' && !field.startsWith('X-Postern-'));
      // SpamAssassin puts X-Spam-Prev-Subject at the end, we put it with its other fields.
      expect(ours.toSorted()).toEqual(theirs.toSorted());
      expect(ours.filter((field) => /^X-Spam-(?!Prev)/.test(field))).toEqual(
        theirs.filter((field) => /^X-Spam-(?!Prev)/.test(field)),
      );
    }
  });

  it('is given no more scans at once than allowed, and answers all of them', async () => {
    const scanner = scannerAt(spamd);
    const scans = await Promise.all(
      Array.from({ length: 8 }, (_, index) =>
        scanner.scan(
          request(message({ headers: HEADERS, body: index % 2 === 0 ? GTUBE : 'Hail!\r\n' })),
          deadline(),
        ),
      ),
    );
    expect(scans.map(({ score }) => score > 900)).toEqual([
      true,
      false,
      true,
      false,
      true,
      false,
      true,
      false,
    ]);
  });

  it('gives score and rules alone when no more is wanted, the same as with the fields', async () => {
    const shown = message({ headers: HEADERS, body: GTUBE });
    const { score, required, rules: hit } = await scan(spamd, shown);
    const bare = await scannerAt(spamd).scan(request(shown, { wanted: 'score' }), deadline());
    expect(bare).toEqual({ score, required, rules: hit, fields: [] });
  });

  it('scans the beginning of a message', async () => {
    const body = `Hail!\r\n${GTUBE}`;
    const shown = message({ headers: HEADERS, body });
    const made = await scannerAt(spamd).scan(request(shown, { bodyOctets: 7 }), deadline());
    expect(made.rules).not.toContain('GTUBE');
    const whole = await scannerAt(spamd).scan(request(shown), deadline());
    expect(whole.rules).toContain('GTUBE');
  });

  it('counts the login for what it is', async () => {
    const submitted = client({
      address: '8.8.8.8',
      name: null,
      helo: 'odin',
      login: 'thor@valhalla.example',
    });
    const made = await checked(
      spamd,
      message({ headers: HEADERS, envelope: envelope({ client: submitted }) }),
    );
    expect(made.rules).toContain('ALL_TRUSTED');
    expect(made.rules).not.toContain('RDNS_NONE');
    expect(made.rules).not.toContain('UNPARSEABLE_RELAY');
  });

  it('says for whom it scanned', async () => {
    const after = spamd.log().length;
    const shown = message({ headers: HEADERS });
    await scannerAt(spamd).scan(request(shown, { user: 'zeus@olimpus.example' }), deadline());
    expect(spamd.log().slice(after)).toMatch(/for zeus@olimpus\.example:\d+/);
  });

  it('one of two that is frozen, or refuses, is left alone; all of them frozen end with the time for one', async () => {
    const frozen = await startSpamd();
    const shown = message({ headers: HEADERS, body: GTUBE });
    try {
      frozen.freeze();
      const both = scannerOf([address(frozen), address(spamd)], 1000);
      expect((await both.scan(request(shown), deadline())).rules).toContain('GTUBE');
      const begun = performance.now();
      expect((await both.scan(request(shown), deadline())).rules).toContain('GTUBE');
      expect(performance.now() - begun).toBeLessThan(1000);
      await expect(scannerOf([address(frozen)], 300).scan(request(shown), deadline())).rejects.toMatchObject({
        name: 'NeighbourError',
        cause: { message: 'no answer within 300 ms' },
      });
    } finally {
      frozen.thaw();
      await frozen.stop();
    }
    const both = scannerOf([address(frozen), address(spamd)]);
    expect((await both.scan(request(shown), deadline())).rules).toContain('GTUBE');
    await expect(scannerOf([address(frozen)]).scan(request(shown), deadline())).rejects.toMatchObject({
      cause: { code: 'ECONNREFUSED' },
    });
  });
});
