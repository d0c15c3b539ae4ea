import { describe, expect, test } from 'vitest';

import { readMail } from '../../../src/feedback/lesson-content.ts';

const TRACE = 'f7kqs4namvixbdph';

function read(...lines: readonly string[]): { key: string | null; text: string } {
  const { key, content } = readMail(Buffer.from(lines.join('\r\n'), 'latin1'), 'mx.example.org');
  return { key, text: Buffer.from(content).toString('latin1') };
}

describe('the name of a message', () => {
  test('is its trace, the topmost one', () => {
    const lines = [
      'Message-ID: <a@b>',
      `X-Postern-Trace: ${TRACE}`,
      'X-Postern-Trace: aaaaaaaaaaaaaaaa',
      '',
      '',
    ];
    expect(read(...lines).key).toBe(TRACE);
  });

  test('is its Message-ID when it has no trace that could be ours', () => {
    expect(read('X-Postern-Trace: no trace', 'message-id:\r\n <a@b>', '', '').key).toBe('<a@b>');
  });

  test('has no octets that a terminal obeys, and an end', () => {
    expect(read('Message-ID: <a\u001b[2J@b>', '', '').key).toBe('<a?[2J@b>');
    expect(read(`Message-ID: <${'a'.repeat(198)}>`, '', '').key).toHaveLength(200);
    expect(read(`Message-ID: <${'a'.repeat(199)}>`, '', '').key).toBe(`<${'a'.repeat(196)}...`);
  });

  test('may be missing', () => {
    expect(read('Subject: x', '', 'Message-ID: <in@body>').key).toBeNull();
    expect(read('').key).toBeNull();
  });
});

describe('what the scanner sees', () => {
  test('is not what was written here', () => {
    const { text } = read(
      `X-Postern-Trace: ${TRACE}`,
      'X-Postern-Verdict: junk; rule=x',
      'X-Envelope-From: <a@b>',
      'X-Spam-Status: No',
      'Authentication-Results: MX.example.org;',
      '\tspf=fail smtp.mailfrom=a@b',
      'Authentication-Results: other.example; spf=pass',
      'From: a@b',
      '',
      'X-Postern-Trace: in the body',
    );
    expect(text).toBe(
      'Authentication-Results: other.example; spf=pass\r\nFrom: a@b\r\n\r\nX-Postern-Trace: in the body',
    );
  });

  test('has the subject that was tagged as it was before', () => {
    const { text } = read('X-Spam-Prev-Subject: hello', 'Subject: [SPAM] hello', '', 'body');
    expect(text).toBe('Subject: hello\r\n\r\nbody');
  });

  test('keeps the marks of SpamAssassin, which takes them off itself, with the report around the message', () => {
    const lines = [
      'X-Spam-Checker-Version: SpamAssassin 4',
      'X-Spam-Prev-Subject: hello',
      'Subject: [SPAM] hello',
    ];
    expect(read(...lines, '', 'body').text).toBe(`${lines.join('\r\n')}\r\n\r\nbody`);
  });

  test('has CRLF line ends throughout, and its octets', () => {
    const mail = Buffer.from('From: a\nSubject: b\n c\n\none\ntwo\r\n\xe9\xff\n', 'latin1');
    expect(Buffer.from(readMail(mail, 'x').content).toString('latin1')).toBe(
      'From: a\r\nSubject: b\r\n c\r\n\r\none\r\ntwo\r\n\xe9\xff\r\n',
    );
  });
});
