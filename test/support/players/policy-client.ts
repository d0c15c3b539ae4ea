import type { Socket } from 'node:net';

import { dial, Inbox, type Target } from './dial.ts';

/** The attributes of Postfix 3.7 in its order, with what an SMTP session over plain TCP leaves in them. */
const ATTRIBUTES = {
  request: 'smtpd_access_policy', protocol_state: 'RCPT', protocol_name: 'ESMTP', client_address: '', client_name: 'unknown', client_port: '',
  reverse_client_name: 'unknown', server_address: '127.0.0.1', server_port: '25', helo_name: '', sender: '', recipient: '', recipient_count: '0',
  queue_id: '', instance: '', size: '0', etrn_domain: '', stress: '', sasl_method: '', sasl_username: '', sasl_sender: '', ccert_subject: '',
  ccert_issuer: '', ccert_fingerprint: '', ccert_pubkey_fingerprint: '', encryption_protocol: '', encryption_cipher: '',
  encryption_keysize: '0', policy_context: '',
}; // prettier-ignore

export type PolicyAttributes = Partial<Record<keyof typeof ATTRIBUTES, string>>;

/** smtpd's side of the policy delegation protocol: one connection, one request at a time. */
export class PolicyClient implements AsyncDisposable {
  readonly #socket: Socket;
  readonly #inbox: Inbox;

  private constructor(socket: Socket) {
    this.#socket = socket;
    this.#inbox = new Inbox(socket);
  }

  static async open(target: Target): Promise<PolicyClient> {
    return new PolicyClient(await dial(target));
  }

  /** The action, without `action=`. */
  async ask(attributes: PolicyAttributes): Promise<string> {
    this.#socket.write(policyRequest(attributes));
    const reply = await this.#inbox.next((held) => {
      const end = held.indexOf('\n\n');
      return end === -1 ? null : { value: held.toString('latin1', 0, end), used: end + 2 };
    });
    if (reply === null) throw new Error('the policy server closed the connection');
    if (!reply.startsWith('action=')) throw new Error(`no action in ${JSON.stringify(reply)}`);
    return reply.slice('action='.length);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#socket.destroy();
    await Promise.resolve();
  }
}

export function policyRequest(attributes: PolicyAttributes): Buffer {
  const lines = Object.entries({ ...ATTRIBUTES, ...attributes }).map(([name, value]) => `${name}=${value}\n`);
  return Buffer.from(`${lines.join('')}\n`, 'latin1');
}
