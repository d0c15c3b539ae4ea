// The parts of mailauth 7.1.0 that the adapter uses, as they are. Its own typings leave out the verifier's inner parts and have `any` in
// the results.

declare module 'mailauth/lib/spf/spf-verify.js' {
  type SpfLookup = (name: string, type: string) => Promise<unknown>;

  /** What a record comes to, before it has a word for it. */
  export interface SpfOutcome {
    /** Of the mechanism that matched. */
    readonly qualifier?: string;
    readonly error?: string;
    /** What the error is. */
    readonly text?: string;
    /** The record. */
    readonly rr?: string;
    readonly explanation?: string;
  }

  /** check_host() with the limits of whoever calls it: `resolver` counts. Throws errors that have an SpfOutcome as `spfResult`. */
  export function spfVerify(
    domain: string,
    options: {
      readonly sender: string;
      readonly ip: string;
      readonly helo: string;
      /** %{r} */
      readonly mta: string;
      readonly strict: boolean;
      readonly resolver: SpfLookup;
      /** For the hosts of an MX or PTR record, counted on their own. */
      readonly createSubResolver: () => SpfLookup;
      /** For the explanation, which is not counted. */
      readonly expResolver: SpfLookup;
    },
  ): Promise<SpfOutcome | false>;
}

declare module 'mailauth/lib/tools.js' {
  /** U-labels as A-labels. RFC 5890 §2.3.2.1. */
  export function toALabel(domain: string): string;
}

declare module 'mailauth/lib/dmarc/index.js' {
  export interface DmarcResponse {
    readonly status: { readonly result: string; readonly header?: { readonly from?: string } };
    readonly policy?: string;
    /** Where the record that applies was published. */
    readonly policyDomain?: string;
    readonly p?: string;
    readonly testMode?: boolean;
    readonly alignment?: {
      readonly spf: { readonly result?: string };
      readonly dkim: { readonly result?: string };
    };
    readonly error?: string;
  }

  export function evaluateDmarc(options: {
    readonly headerFrom: readonly string[];
    readonly fromFields: number;
    readonly spfDomains: readonly string[];
    readonly dkimDomains: readonly string[];
    readonly strict: boolean;
    readonly resolver: (name: string, type: string) => Promise<unknown>;
  }): Promise<{ readonly response: DmarcResponse | false; readonly reason?: string }>;
}

declare module 'mailauth/lib/dkim/dkim-verifier.js' {
  export interface HeaderLine {
    /** Lower case. */
    readonly key: string;
    readonly casedKey: string;
    readonly line: Buffer;
  }

  export class DkimVerifier {
    constructor(options: {
      readonly resolver: (name: string, type: string) => Promise<unknown>;
      readonly strict: boolean;
    });
    /** Addresses in From. */
    readonly headerFrom: readonly string[];
    messageHeaders(headers: { parsed: readonly HeaderLine[]; original: Buffer }): Promise<void>;
  }
}
