/** A running daemon, as the lifecycle sees it. */
export interface Daemon<Config> {
  readonly name: string;
  /** New sessions use the new value; sessions under way keep theirs. */
  reload(config: Config): void;
  /**
   * Stops at safe points: no new connections, what is under way is finished, then connections are closed where the protocol loses
   * nothing. Resolves when the last one is gone; when `signal` aborts, the rest is cut off with a temporary failure.
   */
  stop(signal: AbortSignal): Promise<void>;
}
