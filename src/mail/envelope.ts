import type { Address, ReversePath } from './address.ts';

/** What is known of the TLS layer between the SMTP client and Postfix. */
export interface TlsInfo {
  readonly protocol: string;
  readonly cipher: string;
  readonly bits: number | null;
}

/** The SMTP client as Postfix describes it. */
export interface Client {
  /** IPv4 or IPv6 address in text, without `IPv6:` and brackets; empty for a client that has none (unix socket). */
  readonly address: string;
  readonly port: number | null;
  /** Name whose forward and reverse lookups agree; null when Postfix could not verify one. */
  readonly name: string | null;
  /** Name from the PTR record alone, unverified. */
  readonly reverseName: string | null;
  /** Argument of HELO or EHLO; null before it. */
  readonly helo: string | null;
  readonly tls: TlsInfo | null;
  /** SASL login; null when not authenticated. */
  readonly login: string | null;
}

/** `out`: submitted by a login, an own network, sendmail(1), or a listener marked ORIGINATING. `in`: everything else. */
export type Direction = 'in' | 'out';

/** One accepted RCPT command. */
export interface Recipient {
  readonly address: Address;
  /** ESMTP parameters as sent (`NOTIFY=NEVER`). */
  readonly parameters: readonly string[];
}

/** Everything SMTP says of a message besides its content. RFC 5321 §2.3.1. */
export interface Envelope {
  readonly client: Client;
  readonly direction: Direction;
  readonly sender: ReversePath;
  readonly senderParameters: readonly string[];
  readonly recipients: readonly Recipient[];
  /** Postfix's queue id; null as long as Postfix has not chosen one. */
  readonly queueId: string | null;
}

/** What names one SMTP connection to all daemons: client address and port, which both policy requests and milter events tell. */
export function sessionKey(client: Client): string | null {
  return client.address === '' || client.port === null || client.port === 0
    ? null
    : `${client.address}:${client.port}`;
}
