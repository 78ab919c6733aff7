/** How a client stands: whether it is connected and what it waits for. */

import type { Phase } from "./connection.js";

export interface ConnectionState {
  /**
   * `connecting` before the server accepts the first connection, `open` while there is one, `reconnecting`
   * after it was lost, `closed` when the client was closed or the server told that another connection is of no use.
   */
  readonly phase: Phase;
  readonly isWebSocketConnected: boolean;
  readonly hasEverConnected: boolean;
  /** How often the server has accepted a connection. */
  readonly connectionCount: number;
  /** Attempts to connect again, until one has brought back everything from before. */
  readonly connectionRetries: number;
  /** Calls of `query`, `mutation` and `action` that wait for their results. */
  readonly inflightQueries: number;
  readonly inflightMutations: number;
  readonly inflightActions: number;
  readonly hasInflightRequests: boolean;
  /** When the first of those was made, null if there is none. */
  readonly timeOfOldestInflightRequest: Date | null;
  /** Why the last connection ended or could not be made, null before. It is kept while there is another. */
  readonly lastProblem: string | null;
}

/** Tell whether two states say the same. */
export function sameState(one: ConnectionState, other: ConnectionState): boolean {
  return JSON.stringify(one) === JSON.stringify(other);
}
