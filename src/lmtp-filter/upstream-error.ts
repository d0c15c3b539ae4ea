export const UPSTREAM_FAILURES = ['connect', 'tls', 'lost', 'timeout', 'protocol'] as const;

/**
 * `connect`: no connection could be had. `tls`: it could not be encrypted, or the server not prove who it is. `lost`: the connection
 * ended. `protocol`: what came is not what LMTP has there.
 */
export type UpstreamFailure = (typeof UPSTREAM_FAILURES)[number];

/** The LMTP server is not there, went away, was silent for too long, or answered what can't be trusted. */
export class UpstreamError extends Error {
  readonly failure: UpstreamFailure;

  constructor(failure: UpstreamFailure, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'UpstreamError';
    this.failure = failure;
  }
}
