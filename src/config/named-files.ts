import { resolve } from 'node:path';

import { shown } from './errors.ts';
import { readSmallFile } from './files.ts';
import { readPrivateFile, readSecret, secretPath } from './secret-file.ts';

/** What does not go together, or is wrong with a file; said at a key of the configuration. */
export interface Mistake {
  readonly place: readonly string[];
  readonly wrong: string;
  readonly remedy: string;
}

/** What a file with a secret of a form of its own is read as. */
export type Parsed<T> =
  | { readonly ok: true; readonly value: T }
  | { readonly ok: false; readonly wrong: string; readonly remedy: string };

const LARGEST_CA_FILE = 1024 ** 2;

/** Reads the files that a configuration names, and gathers what is wrong. No text of a file is in a message. */
export class NamedFiles {
  readonly mistakes: Mistake[] = [];
  readonly #folder: string;

  /** @param folder that names are relative to */
  constructor(folder: string) {
    this.#folder = folder;
  }

  say(place: readonly string[], wrong: string, remedy: string): void {
    this.mistakes.push({ place, wrong, remedy });
  }

  /** A secret of one line. null: none is named, or it can't be used. */
  async password(place: readonly string[], written: string | null | undefined): Promise<string | null> {
    if (written === null || written === undefined) return null;
    const reading = await readSecret(secretPath(this.#folder, written), 'allowed');
    if (reading.ok) return reading.secret;
    this.say(place, reading.wrong, 'expected a file with the password alone');
    return null;
  }

  /**
   * A secret of another form. null: none is named, or it can't be used.
   *
   * @param remedy when there is no such file
   */
  async secret<T>(
    place: readonly string[],
    written: string | null | undefined,
    form: {
      readonly limit: number;
      readonly remedy: string;
      /** @param name of the file, for messages */
      readonly parse: (text: string, name: string) => Parsed<T>;
    },
  ): Promise<T | null> {
    if (written === null || written === undefined) return null;
    const path = secretPath(this.#folder, written);
    const reading = await readPrivateFile(path, form.limit);
    if (!reading.ok) {
      const open = reading.why === 'open';
      this.say(place, reading.wrong, open ? 'take the permissions away: chmod 600' : form.remedy);
      return null;
    }
    const parsed = form.parse(reading.octets.toString('latin1'), shown(path));
    if (parsed.ok) return parsed.value;
    this.say(place, parsed.wrong, parsed.remedy);
    return null;
  }

  /** Certificates, PEM, of a connection that is encrypted. null: none are named, or they can't be used. */
  async certificates(
    place: readonly string[],
    written: string | null | undefined,
    encrypted: boolean,
  ): Promise<string | null> {
    if (written === null || written === undefined) return null;
    if (!encrypted) {
      this.say(place, 'certificates for a connection without TLS', 'set tls as well');
      return null;
    }
    const path = resolve(this.#folder, written);
    const reading = await readSmallFile(path, LARGEST_CA_FILE);
    if (!reading.ok) {
      this.say(place, `${shown(path)} can't be used: ${reading.detail}`, 'expected the path of a PEM file');
      return null;
    }
    const ca = reading.octets.toString('latin1');
    if (ca.includes('-----BEGIN CERTIFICATE-----')) return ca;
    this.say(place, `${shown(path)} holds no certificate`, 'expected PEM');
    return null;
  }
}
