/**
 * The addresses of a list as the value of a Postfix table has it, in internal form: `a@x, "b c"@y, Name <d@z>`. RFC 822 §6.1, as far as Postfix's
 * tok822_parse() takes it: white space between two addresses counts as a comma, comments and phrases go.
 */
export function parseAddressList(value: string): readonly string[] {
  const list = new List();
  for (let at = 0; at < value.length; at += 1) {
    const character = value[at] ?? '';
    switch (character) {
      case ' ':
      case '\t':
      case '\r':
        list.gap();
        break;
      case ',':
      case ';':
        list.comma();
        break;
      case ':':
      case '<':
        // What stands before is the name of a group or a person, or a source route.
        list.forget();
        break;
      case '>':
        list.comma();
        break;
      case '"': {
        const end = closingQuote(value, at);
        list.word(value.slice(at + 1, end).replaceAll(/\\(.)/gs, '$1'));
        at = end;
        break;
      }
      case '(':
        at = closingParenthesis(value, at);
        break;
      case '@':
      case '.':
        list.operator(character);
        break;
      default:
        list.letter(character);
    }
  }
  list.comma();
  return list.addresses;
}

class List {
  readonly addresses: string[] = [];
  /** Of this element of the list; more than one where a comma is missing. */
  #pending: string[] = [];
  #address = '';
  /** Whether the address ends in a word, so that a word behind white space is another address. */
  #inWord = false;
  #gap = false;

  gap(): void {
    this.#gap = true;
  }

  letter(character: string): void {
    if (this.#gap) this.#next();
    this.#append(character, true);
  }

  word(text: string): void {
    this.#next();
    this.#append(text, true);
  }

  operator(character: string): void {
    this.#append(character, false);
  }

  /** The element is complete. */
  comma(): void {
    this.#take();
    this.addresses.push(...this.#pending);
    this.#pending = [];
  }

  /** What there is of the element was no address. */
  forget(): void {
    this.#take();
    this.#pending = [];
  }

  /** A word begins: does it belong to the address, or to the next one? */
  #next(): void {
    if (this.#inWord) this.#take();
  }

  #append(text: string, word: boolean): void {
    this.#address += text;
    this.#inWord = word;
    this.#gap = false;
  }

  #take(): void {
    if (this.#address !== '') this.#pending.push(this.#address);
    this.#address = '';
    this.#inWord = false;
    this.#gap = false;
  }
}

function closingQuote(text: string, start: number): number {
  for (let at = start + 1; at < text.length; at += 1) {
    if (text[at] === '\\') at += 1;
    else if (text[at] === '"') return at;
  }
  return text.length;
}

function closingParenthesis(text: string, start: number): number {
  let depth = 0;
  for (let at = start; at < text.length; at += 1) {
    const character = text[at];
    if (character === '\\') at += 1;
    else if (character === '(') depth += 1;
    else if (character === ')') {
      depth -= 1;
      if (depth === 0) return at;
    }
  }
  return text.length;
}
