/** What a session tells the client around it. */

import type { Value } from "./api.js";
import type { HeadwaterError } from "./errors.js";

/** What a query or a call came to: a value, or an error. */
export type Outcome =
  | { readonly value: Value; readonly error?: undefined }
  | { readonly error: HeadwaterError; readonly value?: undefined };

export type ClientEvent =
  /** The server accepted the connection; everything outstanding is on its way. */
  | { readonly type: "Opened" }
  /** A query has another value or error. A query that failed stays subscribed. */
  | { readonly type: "QueryChanged"; readonly query: number; readonly outcome: Outcome }
  /** The optimistic update of a mutation threw on new results and shows nothing now. The mutation goes on. */
  | { readonly type: "UpdateFailed"; readonly request: number; readonly error: unknown }
  /** A mutation is decided and, if it succeeded, visible; or an action is over. Comes once for each. */
  | { readonly type: "Resolved"; readonly request: number; readonly outcome: Outcome }
  /** A piece of an action that streams. `take` it with its size once the caller has it. */
  | { readonly type: "PieceArrived"; readonly request: number; readonly value: Value; readonly size: number }
  /** All values now hold under the last accepted token. */
  | { readonly type: "IdentityChanged" }
  /** The token was refused; the identity stays what it was. */
  | { readonly type: "AuthenticationFailed"; readonly message: string }
  /** The token that held does so no more: values follow as nobody sees them, and calls wait for another token. */
  | { readonly type: "IdentityLost"; readonly message: string }
  /** A transition was applied as a whole: all values now hold at `ts`. */
  | { readonly type: "Moved"; readonly ts: number }
  /** The server ends the connection. With code `session_in_use`, `renew` before the next one. */
  | { readonly type: "Fatal"; readonly error: HeadwaterError; readonly reconnect: boolean }
  /** The server has sent nothing for three heartbeats: cut the connection and connect again. */
  | { readonly type: "PeerSilent" };
