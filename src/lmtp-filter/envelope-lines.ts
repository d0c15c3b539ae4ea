import { parameterText, type Parameter } from './command.ts';
import { SAY } from './render.ts';

/** A path with its parameters, as the client gave them. */
export interface PathCommand {
  readonly path: string;
  readonly parameters: readonly Parameter[];
}

/** What is wrong with the parameters of MAIL; null: nothing. RET and ENVID are taken unannounced, and go no further. */
export function mailProblem({ path, parameters }: PathCommand, sizeLimit: number): string | null {
  let smtputf8 = false;
  for (const { keyword, value } of parameters) {
    switch (keyword) {
      case 'SIZE':
        // RFC 1870 §3: up to 20 digits.
        if (value === null || !/^\d{1,20}$/.test(value)) return SAY.badParameterValue;
        if (Number(value) > sizeLimit) return SAY.tooLarge;
        break;
      case 'BODY':
        if (!/^(?:7BIT|8BITMIME)$/i.test(value ?? '')) return SAY.badParameterValue;
        break;
      case 'SMTPUTF8':
        if (value !== null) return SAY.badParameterValue;
        smtputf8 = true;
        break;
      case 'RET':
      case 'ENVID':
        break;
      default:
        return SAY.unsupportedParameter;
    }
  }
  return smtputf8 || isAscii(path) ? null : SAY.needsSmtputf8;
}

/** What is wrong with RCPT; null: nothing. */
export function rcptProblem({ path, parameters }: PathCommand, smtputf8: boolean): string | null {
  for (const { keyword } of parameters) {
    if (keyword !== 'ORCPT' && keyword !== 'NOTIFY') return SAY.unsupportedParameter;
  }
  return smtputf8 || isAscii(path) ? null : SAY.needsSmtputf8;
}

export function wantsSmtputf8({ parameters }: PathCommand): boolean {
  return parameters.some(({ keyword }) => keyword === 'SMTPUTF8');
}

/** What a parameter's keyword must have been announced as to be passed on. Dovecot answers 555 to what it did not announce. */
const NEEDS: Readonly<Record<string, string>> = {
  SIZE: 'SIZE', // RFC 1870
  BODY: '8BITMIME', // RFC 6152
  SMTPUTF8: 'SMTPUTF8', // RFC 6531
  RET: 'DSN', // RFC 3461
  ENVID: 'DSN',
  NOTIFY: 'DSN',
};

/** MAIL for a server with these capabilities. The path goes byte for byte. */
export function mailLine(command: PathCommand, capabilities: ReadonlySet<string>): string {
  return line('MAIL FROM:', command, capabilities);
}

/** RCPT for a server with these capabilities. ORCPT is taken by Dovecot without being announced, and needed for Delivered-To. */
export function rcptLine(command: PathCommand, capabilities: ReadonlySet<string>): string {
  return line('RCPT TO:', command, capabilities);
}

function line(start: string, { path, parameters }: PathCommand, capabilities: ReadonlySet<string>): string {
  let text = start + path;
  for (const parameter of parameters) {
    const needs = NEEDS[parameter.keyword];
    if (needs === undefined || capabilities.has(needs)) text += ` ${parameterText(parameter)}`;
  }
  return text;
}

function isAscii(text: string): boolean {
  return !/[\x80-\xff]/.test(text);
}
