import { join } from 'node:path';

import { z } from 'zod';

import { FeedbackSpool } from '../adapters/feedback-spool.ts';
import { LessonFolder } from '../adapters/lesson-folder.ts';
import { createSpamTeacher } from '../adapters/spamd-tell.ts';
import type { Config } from '../config/config.ts';
import { feedback } from '../feedback/daemon.ts';
import { parseMailbox, settingsKey } from '../mail/address.ts';
import type { Clock } from '../ports/clock.ts';
import type { SpamTeacher } from '../ports/lessons.ts';
import type { Store } from '../ports/store.ts';
import type { Daemon } from '../runtime/daemon.ts';
import { groupNumber, type Listener } from '../runtime/listener.ts';
import type { Log, Telemetry } from '../runtime/telemetry.ts';

const CONNECT_TIMEOUT_MS = 3000;

export interface FeedbackSiteTools extends Telemetry {
  readonly store: Store;
  readonly checks: { readonly clock: Clock };
}

/** Takes feedback on `listener`, with what its daemon needs of the world. */
export async function startFeedback(
  listener: Listener,
  config: Config,
  { log, registry, store, checks: { clock } }: FeedbackSiteTools,
): Promise<Daemon<Config>> {
  let inUse = config;
  let pupil = openPupil(config, clock);
  const lessons = await openLessons(() => inUse, log);
  await lessons.recover(clock.now());
  const spool = await openSpool(config, clock);
  const daemon = feedback(listener, config, {
    log,
    registry,
    store,
    clock,
    lessons,
    spool,
    pupil: () => pupil,
  });
  return {
    name: daemon.name,
    reload(next) {
      inUse = next;
      pupil = openPupil(next, clock);
      daemon.reload(next);
    },
    stop: (signal) => daemon.stop(signal),
  };
}

/** For everybody who may write to the socket. */
const OTHERS_WRITE = 0o002;

async function openSpool({ file }: Config, clock: Clock): Promise<FeedbackSpool | null> {
  const { spool, group, mode } = file.feedback;
  if (spool === null) return null;
  return await FeedbackSpool.open(spool, {
    now: () => clock.now(),
    group: group === null ? null : await groupNumber(group),
    open: (mode & OTHERS_WRITE) !== 0,
  });
}

/** The messages that wait to be learned. */
export function openLessons(config: () => Config, log: Pick<Log, 'error'>): Promise<LessonFolder> {
  return LessonFolder.open(join(config().file.state.folder, 'lessons'), {
    limit: () => config().file.feedback.max_waiting,
    unreadable(name, error) {
      log.error({ name, err: error }, 'a message to learn could not be read and is gone');
    },
  });
}

/** null: no scanner of this configuration learns from users. */
export function openPupil(config: Config, clock: Clock): SpamTeacher | null {
  const { spamd, rspamd } = config.file;
  if (rspamd.enabled || spamd.enabled === false) return null;
  return createSpamTeacher(
    {
      addresses: spamd.address,
      connectTimeoutMs: CONNECT_TIMEOUT_MS,
      timeoutMs: spamd.timeout,
      learner: (user) => learnerOf(user, config),
    },
    clock,
  );
}

/** As `[checks.spam]` has it. */
const SCANNED_FOR = z.object({
  user: z.enum(['none', 'recipient', 'domain']),
  default_user: z.string().optional(),
});

/** The scanner learns for whom it scans: what one user says is for his own mail, unless all share one database. */
export function learnerOf(user: string, { file }: Pick<Config, 'file'>): string | null {
  const { user: scannedFor, default_user: otherwise = null } = SCANNED_FOR.parse(file.checks['spam']);
  if (user === '') return otherwise;
  // Without a domain it is Dovecot's short name for somebody (auth_username_format = %n), and no domain is known.
  const address = parseMailbox(user);
  switch (scannedFor) {
    case 'none':
      return otherwise;
    case 'recipient':
      return address.domain === '' ? user : settingsKey(address, file.site.recipient_delimiter);
    case 'domain':
      return address.domain === '' ? otherwise : address.domain;
  }
}
