import { describe, expect, test } from 'vitest';

import { publicResolverNotes } from '../../../src/cli/public-resolvers.ts';
import { configSchema } from '../../../src/config/schema.ts';

function notes(hosts: readonly string[], dnsbl: unknown): readonly string[] {
  const file = configSchema.parse({ site: { hostname: 'mx.example' }, checks: { dnsbl } });
  return publicResolverNotes(
    file,
    hosts.map((host) => ({ host })),
  );
}

const LISTS = { list: [{ name: 'zen', zone: 'zen.example' }] };

describe('block lists through a public name server', () => {
  test.each([
    ['8.8.8.8', 'Google'],
    ['2001:4860:4860::8844', 'Google'],
    ['1.1.1.2', 'Cloudflare'],
    ['2606:4700:4700::1111', 'Cloudflare'],
    ['9.9.9.10', 'Quad9'],
    ['208.67.222.222', 'OpenDNS'],
  ])('%s is one of %s', (host, whose) => {
    const [note] = notes([host], LISTS);
    expect(note).toContain(`(zen) are asked through ${host}, a public name server of ${whose};`);
  });

  test.each(['127.0.0.1', '192.0.2.53', '8.8.8.80', '18.8.8.8', '2001:db8::53', '1.1.10.1'])(
    '%s is none',
    (host) => {
      expect(notes([host], LISTS)).toEqual([]);
    },
  );

  test('one note for each', () => {
    expect(notes(['8.8.8.8', '192.0.2.53', '1.1.1.1'], LISTS)).toHaveLength(2);
  });

  test('nothing without a list, or when the check is off', () => {
    expect(notes(['8.8.8.8'], {})).toEqual([]);
    expect(notes(['8.8.8.8'], { ...LISTS, enabled: false })).toEqual([]);
  });
});
