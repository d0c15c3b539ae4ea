import { describe, expect, it } from 'vitest';

import { sessionKey } from '../../../src/mail/envelope.ts';
import { client } from '../../support/mail.ts';

describe('sessionKey', () => {
  it('is address and port of the client', () => {
    expect(sessionKey(client({ address: '2001:db8::1', port: 25 }))).toBe('2001:db8::1:25');
  });

  it.each([{ port: null }, { port: 0 }, { address: '' }])('is not there for %j', (values) => {
    expect(sessionKey(client(values))).toBeNull();
  });
});
