import type { Config } from '../config/config.ts';
import type { Clock } from '../ports/clock.ts';
import type { LessonQueue, SpamTeacher } from '../ports/lessons.ts';
import type { Store } from '../ports/store.ts';
import type { Daemon } from '../runtime/daemon.ts';
import type { Listener } from '../runtime/listener.ts';
import type { Telemetry } from '../runtime/telemetry.ts';
import { Collector, NotTaught } from './collector.ts';
import { feedbackMetrics } from './metrics.ts';
import { Receiver } from './receiver.ts';
import { ScriptFault } from './script-request.ts';
import { Teacher } from './teacher.ts';

export interface FeedbackTools extends Telemetry {
  readonly store: Store;
  readonly clock: Clock;
  readonly lessons: LessonQueue & { readonly count: number; readonly octets: number };
  /** Of the configuration in use; null: nobody learns. */
  readonly pupil: () => SpamTeacher | null;
}

/** Takes what users say of their mail from Dovecot, on the connections of `listener`, and teaches it. */
export function feedback(listener: Listener, config: Config, tools: FeedbackTools): Daemon<Config> {
  const { log, registry, store, clock, lessons, pupil } = tools;
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
  const receiver = new Receiver(listener, {
    maxSize: () => inUse.file.feedback.max_size,
    async take(mail) {
      full = false;
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
  return {
    name: 'feedback',
    reload(next) {
      inUse = next;
      teacher.wake();
    },
    async stop(signal) {
      await receiver.stop(signal);
      await teacher.stop(signal);
    },
  };
}
