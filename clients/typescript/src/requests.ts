/** Mutations and actions of a client that are in flight, and the frames they go out in. Pure. */

import type { Value } from "./api.js";
import { ProtocolError } from "./errors.js";
import type { Outcome } from "./events.js";
import { errorFrom } from "./failures.js";
import { type ActionAnswer, encodeMessage, type MutationAnswer } from "./messages.js";
import { decodeValue } from "./values.js";
import type { Update } from "./view.js";

/** A mutation or action in flight. */
export class Request {
  readonly number: number;
  readonly kind: "mutation" | "action";
  readonly name: string;
  readonly args: Uint8Array;
  /** Shows a mutation's change before the server does, see `Screen`. */
  readonly update: Update | undefined;
  /** Number of the sign-in under which it was made, and whether that was with a token. */
  readonly signIn: number;
  readonly signedIn: boolean;
  /** Newest ts the server had told when a connection first carried it, undefined before. */
  sentTs: number | undefined;
  /** Whether this connection has carried it and owes the answer. */
  waits = false;
  /** Whether more than one connection has carried it. */
  resent = false;
  /** Bytes of pieces of an action that may be on their way; 0: one result is asked for. */
  readonly window: number;
  /** Whether its caller takes no pieces any more. */
  left = false;
  /** What a mutation that succeeded came to, until a transition covers its ts. */
  success: { readonly ts: number; readonly value: Value } | undefined;

  constructor(
    number: number,
    kind: "mutation" | "action",
    name: string,
    args: Uint8Array,
    update: Update | undefined,
    { signIn, signedIn }: { readonly signIn: number; readonly signedIn: boolean },
    window: number,
  ) {
    this.number = number;
    this.kind = kind;
    this.name = name;
    this.args = args;
    this.update = update;
    this.signIn = signIn;
    this.signedIn = signedIn;
    this.window = window;
  }

  /** Whether it is to be sent on this connection, and was not yet. */
  get outstanding(): boolean {
    return this.success === undefined && !this.waits;
  }

  /** Whether any connection has carried it. */
  get sent(): boolean {
    return this.sentTs !== undefined;
  }

  /** Whether it is a mutation without an answer: it will be sent again if the connection ends. */
  get undecided(): boolean {
    return this.kind === "mutation" && this.success === undefined;
  }

  /** Whether it succeeded and results that hold at `ts` show its effect. */
  decidedBy(ts: number): boolean {
    return this.success !== undefined && this.success.ts <= ts;
  }
}

/**
 * Return the frame of a request as it is sent now.
 *
 * `inFlight` are all that are, by number, rising; `toldTs` is the newest ts the server has told.
 */
export function requestFrame(request: Request, inFlight: Iterable<Request>, toldTs: number): Uint8Array {
  const { number, kind, name, args } = request;
  if (kind === "action") {
    return encodeMessage(
      request.window > 0 ? [4, number, name, args, request.window] : [4, number, name, args],
    );
  }
  let below = number;
  for (const other of inFlight) {
    if (other.undecided) {
      below = Math.min(other.number, number);
      break;
    }
  }
  return encodeMessage([3, number, name, args, below, request.sentTs ?? toldTs]);
}

/** Return what an answer carries. Throws `ProtocolError` if it has both a value and an error, or neither. */
export function outcomeOf(answer: MutationAnswer | ActionAnswer): Outcome {
  const { value, error } = answer;
  if (value !== null && error === null) {
    return { value: decodeValue(value) };
  }
  if (error === null || value !== null) {
    throw new ProtocolError(`${answer.type}: expected either a value or an error`);
  }
  return { error: errorFrom(error) };
}
