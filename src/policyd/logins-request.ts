import { z } from 'zod';

import { isIpAddress } from '../checks/networks.ts';
import { withoutZone } from './logins-keys.ts';

/** What Dovecot asks (`allow`, before a password is looked at) and tells (`report`, afterwards). */
export const LOGIN_COMMANDS = ['allow', 'report'] as const;
export type LoginCommand = (typeof LOGIN_COMMANDS)[number];

/** Protocols by Dovecot's names; whatever else asks is `other`. */
export const LOGIN_PROTOCOLS = ['imap', 'pop3', 'sieve', 'smtp', 'other'] as const;
export type LoginProtocol = (typeof LOGIN_PROTOCOLS)[number];

/** One login that is being tried. */
export interface Attempt {
  /** As the client gave it. */
  readonly login: string;
  /** Address of the client, without a zone; empty: Dovecot knows none (`doveadm auth`). */
  readonly remote: string;
  readonly protocol: LoginProtocol;
  /** Joins the requests of one attempt; empty with SMTP. */
  readonly session: string;
  /** What the client calls itself; empty: nothing. */
  readonly device: string;
  /**
   * A short hash of login and password (auth_policy_hash_*), the same for the same two; null where there is none, and where it can't tell
   * passwords apart. In no log line.
   */
  readonly passwordMark: string | null;
}

export type LoginRequest =
  | { readonly command: 'allow'; readonly attempt: Attempt }
  | { readonly command: 'report'; readonly attempt: Attempt; readonly result: LoginResult };

/** `refused`: by the policy, ours or another, and so no wrong password. */
export type LoginResult = 'success' | 'failure' | 'refused';

/**
 * Dovecot: auth_policy_request_attributes. The operator may add attributes. What a client can shape (login, device) is never a reason to call a
 * request malformed: Dovecot lets a login pass whose question was not answered.
 */
const QUESTION = z.object({
  login: z.string(),
  remote: z
    .string()
    .transform(withoutZone)
    .refine((text) => text === '' || isIpAddress(text), 'expected an IP address'),
  protocol: z.string(),
  pwhash: z.string().default(''),
  device_id: z.string().default(''),
  session_id: z.string().default(''),
  mech: z.string().default(''),
});

const REPORT = QUESTION.extend({ success: z.boolean(), policy_reject: z.boolean().default(false) });

/** Mechanisms that hand Dovecot the password itself. With others the hash is made of the login alone, the same whatever the password is. */
const PLAINTEXT_MECHANISMS = new Set(['PLAIN', 'LOGIN']);

/** null: malformed. */
export function parseLoginRequest(command: LoginCommand, body: Buffer): LoginRequest | null {
  const value = parseJson(body);
  switch (command) {
    case 'allow': {
      const read = QUESTION.safeParse(value);
      return read.success ? { command, attempt: attemptOf(read.data) } : null;
    }
    case 'report': {
      const read = REPORT.safeParse(value);
      if (!read.success) return null;
      const { success, policy_reject: refused } = read.data;
      const result = success ? 'success' : refused ? 'refused' : 'failure';
      return { command, attempt: attemptOf(read.data), result };
    }
  }
}

function attemptOf(question: z.output<typeof QUESTION>): Attempt {
  const { login, remote, protocol, pwhash, device_id: device, session_id: session, mech } = question;
  return {
    login,
    remote,
    protocol: LOGIN_PROTOCOLS.find((known) => known === protocol) ?? 'other',
    session,
    device,
    passwordMark: pwhash !== '' && PLAINTEXT_MECHANISMS.has(mech.toUpperCase()) ? pwhash : null,
  };
}

/** undefined: no JSON. */
function parseJson(body: Buffer): unknown {
  try {
    // Not fatal: a login name that is no UTF-8 is a login name all the same.
    const value: unknown = JSON.parse(body.toString('utf8'));
    return value;
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
}
