import { counter, gauge } from '../runtime/metrics.ts';
import type { Registry } from '../runtime/telemetry.ts';
import { LABEL_KINDS, type LabelKind } from '../ports/store.ts';

/** What became of a message that a user labelled, as far as the scanner is concerned. */
const LESSONS = ['learned', 'known', 'failed', 'too-large', 'no-room', 'given-up'] as const;

export type LessonEnd = (typeof LESSONS)[number];

/** Why somebody who connected got no answer, or "-". */
const FAULTS = ['protocol', 'slow', 'broken-off', 'not-kept'] as const;

export type FeedbackFault = (typeof FAULTS)[number];

export interface FeedbackMetrics {
  labelled(label: LabelKind): void;
  lesson(end: LessonEnd): void;
  fault(fault: FeedbackFault): void;
  /** A message was taken that had waited in the spool. */
  spooled(): void;
  waiting(count: number, octets: number): void;
}

export function feedbackMetrics(registry: Registry): FeedbackMetrics {
  const labels = counter<'label'>(registry, {
    name: 'postern_feedback_labels_total',
    help: 'Messages that users labelled by moving them into the junk folder or out of it.',
    labels: { label: LABEL_KINDS },
  });
  const lessons = counter<'result'>(registry, {
    name: 'postern_feedback_lessons_total',
    help: 'What became of teaching SpamAssassin; "failed" is tried again.',
    labels: { result: LESSONS },
  });
  const faults = counter<'reason'>(registry, {
    name: 'postern_feedback_faults_total',
    help: 'Messages from Dovecot that could not be taken, by reason.',
    labels: { reason: FAULTS },
  });
  const spooled = counter(registry, {
    name: 'postern_feedback_spooled_total',
    help: 'Messages that Dovecot had left in feedback.spool, because Postern did not answer, and that were taken from there.',
  });
  const waiting = gauge(registry, {
    name: 'postern_feedback_waiting',
    help: 'Messages that wait to be learned by SpamAssassin.',
  });
  const octets = gauge(registry, {
    name: 'postern_feedback_waiting_bytes',
    help: 'Size of the messages that wait to be learned by SpamAssassin.',
  });
  return {
    labelled: (label) => labels.inc({ label }),
    lesson: (result) => lessons.inc({ result }),
    fault: (reason) => faults.inc({ reason }),
    spooled: () => spooled.inc(),
    waiting(count, size) {
      waiting.set(count);
      octets.set(size);
    },
  };
}
