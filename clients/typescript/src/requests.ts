/** Mutations and actions of a client, and the frames they go out in. Pure. */

import type { Value } from "./api.js";
import { ProtocolError } from "./errors.js";
import type { Outcome } from "./events.js";
import { errorFrom } from "./failures.js";
import { type ActionAnswer, encodeMessage, type MutationAnswer } from "./messages.js";
import { decodeValue } from "./values.js";
import type { Update } from "./view.js";

/** What is called. */
export interface Call {
  readonly kind: "mutation" | "action";
  readonly name: string;
  readonly args: Uint8Array;
  /** Shows a mutation's change before the server does, see `Screen`. */
  readonly update?: Update | undefined;
  /** Bytes of pieces of an action that may be on their way; 0: one result is asked for. */
  readonly window?: number;
}

/** A call in flight. */
export interface Request extends Call {
  readonly number: number;
  /** Number of the sign-in under which it was made, and whether that was with a token. */
  readonly signIn: number;
  readonly signedIn: boolean;
  /** Newest ts the server had told when a connection first carried it, undefined before. */
  sentTs?: number;
  /** Whether this connection has carried it and owes the answer. */
  waits?: boolean;
  /** Whether more than one connection has carried it. */
  resent?: boolean;
  /** Whether its caller takes no pieces any more. */
  left?: boolean;
  /** What a mutation that succeeded came to, until a transition covers its ts. */
  success?: { readonly ts: number; readonly value: Value };
}

/** Whether any connection has carried it. */
export function isSent({ sentTs }: Request): boolean {
  return sentTs !== undefined;
}

/** Whether it is to be sent on this connection, and was not yet. */
export function isOutstanding({ success, waits }: Request): boolean {
  return !success && !waits;
}

/** Return the frame of a request. Answers to those below `below` are there; `toldTs` is the newest ts that was told. */
export function requestFrame(request: Request, below: number, toldTs: number): Uint8Array {
  const { number, kind, name, args, window, sentTs = toldTs } = request;
  return encodeMessage(
    kind === "mutation"
      ? [3, number, name, args, below, sentTs]
      : window
        ? [4, number, name, args, window]
        : [4, number, name, args],
  );
}

/** Return what an answer carries. Throws `ProtocolError` if it has both a value and an error, or neither. */
export function outcomeOf({ type, value, error }: MutationAnswer | ActionAnswer): Outcome {
  if ((value === null) === (error === null)) {
    throw new ProtocolError(`${type}: expected either a value or an error`);
  }
  return error === null ? { value: decodeValue(value as Uint8Array) } : { error: errorFrom(error) };
}
