/** What can go wrong, told apart by `code`. Pure. */

import type { Value } from "./api.js";

/** What a caller may do after an error. */
export type Retry = "never" | "same_request" | "after_reconnect";

/** Base of all errors of a client and its server. `code` is one of the protocol's table of errors. */
export class HeadwaterError extends Error {
  override readonly name: string = "HeadwaterError";
  readonly code: string;
  /** Structured data of an `ApplicationError`; of `rate_limited` `{retry_after_s}`; else null. */
  readonly data: Value;

  constructor(code: string, message: string, data: Value = null) {
    super(message || code);
    this.code = code;
    this.data = data;
  }

  /** What a caller may do. */
  get retry(): Retry {
    switch (this.code) {
      case "conflict":
      case "disk_full":
      case "no_bundle":
      case "overloaded":
      case "rate_limited":
        return "same_request";
      case "session_in_use":
      case "unavailable":
        return "after_reconnect";
    }
    return "never";
  }
}

/** Raised by a function of the bundle to tell its caller something: `error.data` is what it was raised with. */
export class ApplicationError extends HeadwaterError {
  override readonly name = "ApplicationError";

  constructor(data: Value, message = "") {
    super("application_error", message || (typeof data === "string" ? data : ""), data);
  }
}

/** The server broke the protocol, or what came is not its bytes. */
export class ProtocolError extends HeadwaterError {
  override readonly name = "ProtocolError";

  constructor(message: string, code = "protocol_error") {
    super(code, message);
  }
}

/** Return the error that a code on the wire means. */
export function errorFor(code: string, message: string, data: Value = null): HeadwaterError {
  return code === "application_error"
    ? new ApplicationError(data, message)
    : new HeadwaterError(code, message, data);
}
