import type { Config } from '../config/config.ts';
import type { Clock } from '../ports/clock.ts';
import type { LessonQueue, SpamTeacher } from '../ports/lessons.ts';
import type { SpooledFeedback } from '../ports/spooled-feedback.ts';
import type { Store } from '../ports/store.ts';
import type { Daemon } from '../runtime/daemon.ts';
import type { Listener } from '../runtime/listener.ts';
import type { Telemetry } from '../runtime/telemetry.ts';
import { Collector, NotTaught } from './collector.ts';
import { feedbackMetrics } from './metrics.ts';
import { Receiver } from './receiver.ts';
import { ScriptFault } from './script-request.ts';
import { Spooled } from './spooled.ts';
import { Teacher } from './teacher.ts';

export interface FeedbackTools extends Telemetry {
  readonly store: Store;
  readonly clock: Clock;
  readonly lessons: LessonQueue & { readonly count: number; readonly octets: number };
  /** Where Dovecot leaves what users say while nobody answers; null: nowhere. */
  readonly spool: SpooledFeedback | null;
  /** Of the configuration in use; null: nobody learns. */
  readonly pupil: () => SpamTeacher | null;
}

/** Takes what users say of their mail from Dovecot, on the connections of `listener`, and teaches it. */
export function feedback(listener: Listener, config: Config, tools: FeedbackTools): Daemon<Config> {
  const { log, registry, store, clock, lessons, spool, pupil } = tools;
  const metrics = feedbackMetrics(registry);
  let inUse = config;
  let full = false;
  const teacher = new Teacher({ queue: lessons, pupil, clock, metrics, log });
  const collector = new Collector({
    store,
    queue: lessons,
    clock,
    metrics,
    log,
    teaches: () => pupil() !== null,
    authservId: () => inUse.authservId,
    onLesson: () => teacher.wake(),
  });
  const maxSize = (): number => inUse.file.feedback.max_size;
  const spooled =
    spool === null
      ? null
      : new Spooled({ spool, maxSize, take: (mail) => collector.take(mail), metrics, log });
  const receiver = new Receiver(listener, {
    maxSize,
    async take(mail) {
      full = false;
      // It was said before.
      await spooled?.takeAll();
      await collector.take(mail);
    },
    onFault(fault, error) {
      // It is counted and told of already.
      if (error instanceof NotTaught) return;
      metrics.fault(fault);
      if (error instanceof ScriptFault)
        log.warn({ why: error.message }, 'a request for feedback that is none');
      else if (error !== undefined) log.error({ err: error }, 'feedback could not be kept');
    },
    onRefused() {
      if (!full) log.warn('too many connections: raise feedback.max_connections');
      full = true;
    },
  });
  teacher.wake();
  spooled?.start();
  return {
    name: 'feedback',
    reload(next) {
      inUse = next;
      teacher.wake();
    },
    async stop(signal) {
      await receiver.stop(signal);
      await spooled?.stop();
      await teacher.stop(signal);
    },
  };
}
