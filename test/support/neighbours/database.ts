/** A private database server on loopback. */
export interface DatabaseServer extends AsyncDisposable {
  readonly port: number;
  readonly socketPath: string;
  /** Runs statements as the administrator; what they print. */
  sql(text: string, database?: string): Promise<string>;
  /** Ends the server as a crash would. */
  kill(): Promise<void>;
  /** Starts it again, at the same addresses, after `kill`. */
  restart(): Promise<void>;
  /** It takes connections from now on, because the kernel does that, and answers nothing. */
  freeze(): void;
  thaw(): void;
  log(): string;
}

/** Paths of PEM files that the server may read. */
export interface ServerCertificate {
  readonly certificate: string;
  readonly key: string;
  readonly ca: string;
}
