import { trimBlanks } from './header.ts';

/** `name=value; name=value`, as DKIM and ARC write their fields and keys. RFC 6376 §3.2. */
export interface TagList {
  /** In the order of the text, values without the white space around them; of a name that is there twice the last one. */
  readonly tags: ReadonlyMap<string, string>;
  /** Whether it is by the grammar. What is not is never acted on; its tags are told to people. */
  readonly valid: boolean;
}

/** ALPHA *ALNUMPUNC. */
const NAME = /^[A-Za-z][A-Za-z0-9_]*$/;

/** VALCHAR and folding white space between. RFC 6532 and RFC 8616 §4 add UTF-8. */
const VALUE = /^(?:[\x21-\x7e\x80-\xff \t]|\r\n[ \t])*$/;

/** Names are told apart by case, as RFC 6376 §3.2 wants. Linear in the length of the text. */
export function parseTagList(text: string): TagList {
  const tags = new Map<string, string>();
  let valid = true;
  const specs = text.split(';');
  specs.forEach((spec, index) => {
    const equals = spec.indexOf('=');
    if (equals === -1) {
      // One semicolon may stand at the end; nothing else may be empty.
      valid &&= index === specs.length - 1 && index > 0 && trimBlanks(spec) === '';
      return;
    }
    const name = trimBlanks(spec.slice(0, equals));
    const value = trimBlanks(spec.slice(equals + 1));
    valid &&= NAME.test(name) && VALUE.test(value) && !tags.has(name);
    tags.set(name, value);
  });
  return { tags, valid };
}

/** Without any white space: base64, and lists with colons. RFC 6376 §2.10, §3.5. */
export function withoutBlanks(value: string): string {
  return value.replaceAll(/[ \t\r\n]+/g, '');
}

/** A list with colons, in lower case. */
export function colonList(value: string): readonly string[] {
  return withoutBlanks(value)
    .toLowerCase()
    .split(':')
    .filter((item) => item !== '');
}

/** The text with the value of one tag taken out, with the white space around it. RFC 6376 §3.7 (b=). */
export function withoutTagValue(text: string, name: string): string {
  let begin = 0;
  while (begin < text.length) {
    const semicolon = text.indexOf(';', begin);
    const end = semicolon === -1 ? text.length : semicolon;
    const equals = text.indexOf('=', begin);
    if (equals !== -1 && equals < end && trimBlanks(text.slice(begin, equals)) === name)
      return text.slice(0, equals + 1) + text.slice(end);
    begin = end + 1;
  }
  return text;
}
