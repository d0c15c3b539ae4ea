import { describe, expect, it } from 'vitest';

import { LINE_LIMIT } from '../../../src/mail/fold.ts';
import { PREVIOUS_SUBJECT, tagSubject, type SubjectQuestion } from '../../../src/verdict/subject-tag.ts';

function ask(values: Partial<SubjectQuestion>): ReturnType<typeof tagSubject> {
  return tagSubject({
    subjects: [],
    previous: null,
    trusted: false,
    handled: false,
    tag: '[SPAM]',
    ...values,
  });
}

describe('tagSubject', () => {
  it.each([
    ['plain', ' hello', ' [SPAM] hello'],
    ['without a leading space', 'hello', ' [SPAM] hello'],
    ['with a tab', '\thello', ' [SPAM]\thello'],
    ['folded', ' hello\r\n\tworld', ' [SPAM] hello\r\n\tworld'],
    ['folded at once', '\r\n hello', ' [SPAM]\r\n hello'],
    ['encoded', ' =?ISO-8859-1?Q?h=E9?=', ' [SPAM] =?ISO-8859-1?Q?h=E9?='],
    ['with 8-bit bytes', ' h\xc3\xa9\xa0', ' [SPAM] h\xc3\xa9\xa0'],
    ['broken by a bare LF', ' a\nX-Injected: b', ' [SPAM] a\r\n\tX-Injected: b'],
  ])('puts the tag in front of a subject: %s', (_, subject, wanted) => {
    expect(ask({ subjects: [subject] })).toEqual({ subjects: [wanted], previous: subject });
  });

  it.each([' [SPAM] hello', '\r\n [SPAM] hello', '[SPAM]', ' [SPAM]hello'])(
    'leaves a subject alone that begins with the tag: %j',
    (subject) => {
      // As SpamAssassin does, which keeps the subject even then.
      expect(ask({ subjects: [subject] })).toEqual({ subjects: [subject], previous: subject });
    },
  );

  it('leaves a report alone, whose attached original has the subject', () => {
    const report = { subjects: [' [SPAM] hello'], previous: null };
    expect(ask({ ...report, handled: true })).toEqual(report);
  });

  it('keeps an empty subject apart from a missing one', () => {
    expect(ask({ subjects: [' '] })).toEqual({ subjects: [' [SPAM] '], previous: ' ' });
    expect(ask({ subjects: [] })).toEqual({ subjects: [' [SPAM] '], previous: ' (nonexistent)' });
  });

  it('tags every Subject field, because programs differ in which one they show', () => {
    expect(ask({ subjects: [' a', ' b'] })).toEqual({
      subjects: [' [SPAM] a', ' [SPAM] b'],
      previous: ' a',
    });
  });

  it('does nothing without a tag', () => {
    expect(ask({ subjects: [' a'], previous: ' x', tag: ' ' })).toEqual({ subjects: [' a'], previous: null });
  });

  it('makes no line longer than 998 octets', () => {
    for (const length of [970, 977, 978, 981, 982, 983, 989]) {
      const subject = ` ${'x'.repeat(length - 1)}`;
      const answer = ask({ subjects: [subject] });
      const lines = [`Subject:${answer.subjects.join()}`, `${PREVIOUS_SUBJECT}:${answer.previous ?? ''}`];
      for (const line of lines.flatMap((text) => text.split('\r\n')))
        expect(line.length).toBeLessThanOrEqual(LINE_LIMIT);
      expect(answer.subjects.join().replaceAll('\r\n', '')).toBe(` [SPAM]${subject}`);
      expect(ask({ subjects: answer.subjects, previous: answer.previous })).toEqual(answer);
    }
  });

  it('folds behind the tag at exactly one octet too many', () => {
    const fits = 'x'.repeat(LINE_LIMIT - 'Subject: [SPAM] '.length);
    expect(ask({ subjects: [` ${fits}`] }).subjects).toEqual([` [SPAM] ${fits}`]);
    expect(ask({ subjects: [` ${fits}x`] }).subjects).toEqual([` [SPAM]\r\n ${fits}x`]);
  });
});

describe('a subject that was tagged on the way here', () => {
  it('keeps what it was', () => {
    const once = { subjects: [' [SPAM] hello'], previous: ' hello' };
    expect(ask(once)).toEqual(once);
    expect(ask({ ...once, trusted: true })).toEqual(once);
  });

  it('loses a previous subject that is not what the tag was put in front of', () => {
    expect(ask({ subjects: [' [SPAM] hello'], previous: ' lie' })).toEqual({
      subjects: [' [SPAM] hello'],
      previous: ' [SPAM] hello',
    });
  });

  it('gets back what the sender wrote when this recipient has no tag', () => {
    const question = { subjects: [' [SPAM] hello'], previous: ' hello', tag: '' };
    expect(ask({ ...question, trusted: true })).toEqual({ subjects: [' hello'], previous: null });
    expect(ask({ ...question, trusted: false })).toEqual({ subjects: [' [SPAM] hello'], previous: null });
  });

  it('gets this recipient’s tag instead', () => {
    expect(ask({ subjects: [' [SPAM] hello'], previous: ' hello', trusted: true, tag: '*JUNK*' })).toEqual({
      subjects: [' *JUNK* hello'],
      previous: ' hello',
    });
  });

  it('goes when there was none and this recipient has no tag', () => {
    const tagged = { subjects: [' [SPAM]'], previous: ' (nonexistent)' };
    expect(ask(tagged)).toEqual(tagged);
    expect(ask({ ...tagged, trusted: true, tag: '' })).toEqual({ subjects: [], previous: null });
  });

  it('may really have been "(nonexistent)"', () => {
    const tagged = ask({ subjects: [' (nonexistent)'] });
    expect(tagged).toEqual({ subjects: [' [SPAM] (nonexistent)'], previous: ' (nonexistent)' });
    expect(ask({ ...tagged, trusted: true, tag: '' }).subjects).toEqual([' (nonexistent)']);
  });
});

describe('a tag that is not US-ASCII', () => {
  it('becomes an encoded-word, with the space that separates it inside', () => {
    // RFC 2047 §6.2: white space between adjacent encoded-words is not shown.
    expect(ask({ subjects: [' =?UTF-8?Q?x?='], tag: '[MÜLL]' }).subjects).toEqual([
      ` =?UTF-8?B?${Buffer.from('[MÜLL] ').toString('base64')}?= =?UTF-8?Q?x?=`,
    ]);
  });

  it('is split into words of at most 75 characters, never within a letter', () => {
    const [subject = ''] = ask({ subjects: [], tag: '✂'.repeat(60) }).subjects;
    const words = subject.trim().split(' ');
    expect(words.length).toBeGreaterThan(1);
    for (const word of words) {
      expect(word.length).toBeLessThanOrEqual(75);
      expect(Buffer.from(word.slice(10, -2), 'base64').toString('utf8')).toMatch(/^(?:✂+ ?| )$/);
    }
  });

  it('brings no control characters', () => {
    const [subject = ''] = ask({ subjects: [], tag: 'a\r\nX: ü' }).subjects;
    expect(Buffer.from(subject.slice(11, -2), 'base64').toString('utf8')).toBe('a??X: ü ');
  });
});
