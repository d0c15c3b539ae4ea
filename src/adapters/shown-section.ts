import { foldedValue } from '../mail/fold.ts';
import { HeaderList, type HeaderField } from '../mail/header.ts';
import type { ScanRequest } from '../ports/scanner.ts';

/** What a scanner shall see of the message's own fields, without the empty line. */
export function shownSection({ message, hide }: ScanRequest): string {
  const fields: HeaderField[] = [];
  for (const field of message.headers) {
    // Scanners end a line at a bare LF too: such a field must not become two, of which one passes for a field of ours.
    if (!hide(field)) fields.push({ ...field, value: foldedValue(field.value) });
  }
  return new HeaderList(fields).serialize();
}
