import { NULL_PATH, parseForwardPath, parseReversePath } from '../../src/mail/address.ts';
import type { Client, Envelope } from '../../src/mail/envelope.ts';
import { parseHeaderSection } from '../../src/mail/header.ts';
import type { Message } from '../../src/mail/message.ts';

export function client(values: Partial<Client> = {}): Client {
  return {
    address: '192.0.2.20',
    port: 34_567,
    name: 'odin.valhalla.example',
    reverseName: 'odin.valhalla.example',
    helo: 'odin.valhalla.example',
    tls: null,
    login: null,
    ...values,
  };
}

export function envelope(
  values: Partial<Omit<Envelope, 'sender' | 'recipients'>> & { sender?: string; recipients?: string[] } = {},
): Envelope {
  const { sender = '<thor@valhalla.example>', recipients = ['<zeus@olimpus.example>'], ...others } = values;
  return {
    client: client(),
    direction: 'in',
    senderParameters: [],
    queueId: '4ABCdef123z',
    ...others,
    sender: sender === '<>' ? NULL_PATH : parseReversePath(sender),
    recipients: recipients.map((path) => ({ address: parseForwardPath(path), parameters: [] })),
  };
}

export interface MessageValues {
  readonly envelope?: Envelope;
  /** Header section with CRLF line ends, latin1. */
  readonly headers?: string;
  readonly body?: string | readonly Uint8Array[];
  readonly received?: boolean;
}

export function message(values: MessageValues = {}): Message {
  const { body = 'Hail!\r\n', headers = 'From: thor@valhalla.example\r\nSubject: hammer\r\n' } = values;
  const chunks = typeof body === 'string' ? [Buffer.from(body, 'latin1')] : body;
  return {
    envelope: values.envelope ?? envelope(),
    headers: parseHeaderSection(headers),
    body: { size: chunks.reduce((size, chunk) => size + chunk.length, 0), chunks: () => chunks },
    received: values.received ?? false,
  };
}
