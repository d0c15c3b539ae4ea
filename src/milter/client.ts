import { isIP } from 'node:net';

import type { NetworkSet } from '../checks/networks.ts';
import type { Client, Direction } from '../mail/envelope.ts';
import type { Macros } from './macros.ts';
import type { Connect } from './command.ts';

/** The SMTP client as CONNECT tells of it. */
export interface Peer {
  readonly host: string;
  /** Without the `IPv6:` that Sendmail puts in front; empty when there is none, or it is not one. */
  readonly address: string;
  readonly port: number;
  /**
   * Mail that did not come by SMTP (sendmail(1), Postfix's own notifications): cleanup plays the client, from a port that no client has.
   */
  readonly nonSmtp: boolean;
  /** Whether it is in one of our own networks. */
  readonly own: boolean;
}

export function peerOf(connect: Connect, ownNetworks: NetworkSet): Peer {
  const { host, port } = connect;
  const address = addressOf(connect);
  const loopback = address === '127.0.0.1' || address === '::1';
  return {
    host,
    address,
    port,
    nonSmtp: host === 'localhost' && port === 0 && loopback,
    own: ownNetworks.has(address),
  };
}

/** The client as it stands at MAIL FROM: its login and TLS session come with the macros. */
export function clientOf(peer: Peer, helo: string | null, macros: Macros): Client {
  const { host, address, port } = peer;
  const nameless = host === '' || host === 'unknown' || host.startsWith('[') || isIP(host) !== 0;
  return {
    address,
    port: port === 0 ? null : port,
    // Postfix writes `[address]` when name and address do not agree, Sendmail says so in a macro.
    name: nameless || macros.forged ? null : host,
    reverseName: macros.reverseName,
    helo,
    tls: macros.tls,
    login: macros.login,
  };
}

export function directionOf(peer: Peer, macros: Macros): Direction {
  return peer.own || peer.nonSmtp || macros.login !== null || macros.originating ? 'out' : 'in';
}

function addressOf({ family, address }: Connect): string {
  switch (family) {
    case 'inet':
    case 'inet6': {
      const bare = address.replace(/^IPv6:/i, '');
      return isIP(bare) === 0 ? '' : bare;
    }
    case 'local':
    case 'unknown':
      return '';
  }
}
