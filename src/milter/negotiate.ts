import type { Answer } from './responses.ts';
import { ProtocolError, type Offer } from './command.ts';

/** Modifications: INSHEADER needs ADDHDRS, CHGHEADER needs CHGHDRS. */
const SMFIF_ADDHDRS = 0x001;
const SMFIF_CHGBODY = 0x002;
const SMFIF_ADDRCPT = 0x004;
const SMFIF_CHGHDRS = 0x010;
const SMFIF_QUARANTINE = 0x020;
const SMFIF_ADDRCPT_PAR = 0x080;

const SMFIP_NR_HDR = 0x00_0080;
const SMFIP_NOUNKNOWN = 0x00_0100;
const SMFIP_NR_CONN = 0x00_1000;
const SMFIP_NR_HELO = 0x00_2000;
const SMFIP_NR_MAIL = 0x00_4000;
const SMFIP_NR_RCPT = 0x00_8000;
const SMFIP_NR_EOH = 0x04_0000;
const SMFIP_NR_BODY = 0x08_0000;
const SMFIP_HDR_LEADSPC = 0x10_0000;

const OLDEST_VERSION = 2;
const NEWEST_VERSION = 6;

const ACTIONS = SMFIF_ADDHDRS | SMFIF_CHGHDRS | SMFIF_QUARANTINE;

/** Steps that version 3 and later can leave out. */
const STEPS_V3 = SMFIP_NOUNKNOWN;
/**
 * No answer is given to events that are never refused. NR_DATA and NODATA are left out on purpose: Postfix flushes after DATA, and with
 * nothing to acknowledge that, the first header waits 40 ms on TCP. SKIP is left out because it would be an answer to body chunks, which
 * get none.
 */
const STEPS_V6 =
  SMFIP_NR_CONN |
  SMFIP_NR_HELO |
  SMFIP_NR_MAIL |
  SMFIP_NR_RCPT |
  SMFIP_NR_HDR |
  SMFIP_NR_EOH |
  SMFIP_NR_BODY |
  SMFIP_HDR_LEADSPC;

/** Events that can go without an answer, with the bit that says so. */
const NO_REPLY = {
  connect: SMFIP_NR_CONN,
  helo: SMFIP_NR_HELO,
  mail: SMFIP_NR_MAIL,
  rcpt: SMFIP_NR_RCPT,
  header: SMFIP_NR_HDR,
  'end-of-headers': SMFIP_NR_EOH,
  body: SMFIP_NR_BODY,
} as const;

export type SilentEvent = keyof typeof NO_REPLY;

/** What both sides have agreed on for one connection. */
export interface Terms {
  readonly answer: Answer;
  /** Header values come and go with the white space after the colon; otherwise the MTA removes and adds one space. */
  readonly leadingSpace: boolean;
  /** A recipient may be added with ESMTP parameters. */
  readonly recipientParameters: boolean;
}

/**
 * Our answer to an MTA's offer: never a version, an action or a step that it did not offer.
 *
 * @param wishes what is asked for only where it may be needed: to replace the body, to add recipients
 * @throws {ProtocolError} when there is no common ground
 */
export function negotiate(
  offer: Offer,
  wishes: { readonly replacesBody?: boolean; readonly addsRecipients?: boolean } = {},
): Terms {
  if (offer.version < OLDEST_VERSION) {
    throw new ProtocolError(
      'negotiation',
      `protocol version ${offer.version} was offered, ${OLDEST_VERSION} is needed`,
    );
  }
  const needed =
    ACTIONS |
    (wishes.replacesBody === true ? SMFIF_CHGBODY : 0) |
    (wishes.addsRecipients === true ? SMFIF_ADDRCPT : 0);
  if ((offer.actions & needed) !== needed) {
    throw new ProtocolError(
      'negotiation',
      `actions 0x${offer.actions.toString(16)} were offered, 0x${needed.toString(16)} are needed`,
    );
  }
  const actions = needed | (wishes.addsRecipients === true ? offer.actions & SMFIF_ADDRCPT_PAR : 0);
  const version = Math.min(offer.version, NEWEST_VERSION);
  const wanted = (version >= 3 ? STEPS_V3 : 0) | (version >= 6 ? STEPS_V6 : 0);
  const protocol = offer.protocol & wanted;
  return {
    answer: { version, actions, protocol },
    leadingSpace: (protocol & SMFIP_HDR_LEADSPC) !== 0,
    recipientParameters: (actions & SMFIF_ADDRCPT_PAR) !== 0,
  };
}

/** Whether the MTA waits for an answer to this event. */
export function expectsReply(terms: Terms, event: SilentEvent): boolean {
  return (terms.answer.protocol & NO_REPLY[event]) === 0;
}
