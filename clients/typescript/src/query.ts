/** One subscription of a session: what the server has told of it, and what it shows. Pure. */

import { type AnyReference, functionName, type Value } from "./api.js";
import { applyDelta } from "./deltas.js";
import { ProtocolError } from "./errors.js";
import type { Outcome } from "./events.js";
import { errorFrom } from "./failures.js";
import type { ChangeBody } from "./messages.js";
import { shared } from "./sharing.js";
import { canonicalBytes, decodeValue, keyOf } from "./values.js";

const OVERHEAD_BYTES = 64; // numbers, headers and digest of one query in a ModifyQuerySet, at most

export class Query {
  readonly name: string;
  /** Encoded dict; equal arguments have equal bytes. */
  readonly args: Uint8Array;
  /** What it has in common with every subscription to the same function with the same arguments. */
  readonly key: string;
  /** Whether it shows what the server told at once, without steps and updates. */
  readonly confirmed: boolean;
  /** Whether the present connection knows it. */
  carried = false;
  /** Last value; undefined while it failed or has none. */
  value: Value | undefined;
  /** Names `value` to the server; null while there is none to start a delta from. */
  digest: Uint8Array | null = null;
  /** What the server wants back when the query is resumed. */
  journal: Uint8Array | null = null;
  /** What stands since the last step; undefined before the first result. */
  settled: Outcome | undefined;
  /** What an update shows in place of `settled`, undefined while none does. */
  shown: Value | undefined;

  constructor(name: string, args: Uint8Array, confirmed: boolean) {
    this.name = name;
    this.args = args;
    this.key = keyOfQuery(name, args);
    this.confirmed = confirmed;
  }

  /** How much of a frame it takes, at most. */
  get sizeBytes(): number {
    return 4 * this.name.length + this.args.length + (this.journal?.length ?? 0) + OVERHEAD_BYTES;
  }

  /** Return what a change brings, without applying it; undefined if it stays as it is. */
  outcomeOf(number: number, body: ChangeBody): Outcome | undefined {
    switch (body.type) {
      case "Value": {
        const fresh = decodeValue(body.content);
        return { value: this.value === undefined ? fresh : shared(this.value, fresh) };
      }
      case "Delta":
        if (this.digest !== null && this.value !== undefined) {
          return { value: applyDelta(this.value, body.operations) };
        }
        break;
      case "Unchanged":
        if (this.digest !== null && keyOf(body.digest) === keyOf(this.digest)) {
          return undefined;
        }
        break;
      case "Failed":
        return { error: errorFrom(body.error) };
      case "Removed":
        return undefined;
    }
    throw new ProtocolError(`unexpected ${body.type} for query ${number}`);
  }

  /** Take over a change, with what `outcomeOf` returned for it. */
  apply(body: ChangeBody, outcome: Outcome | undefined): void {
    if (outcome) {
      this.value = outcome.value;
    }
    if (body.type === "Failed") {
      this.digest = null;
    } else if (body.type !== "Removed") {
      // Copies: a part of a frame would keep all of it in memory.
      this.digest = body.digest.slice();
      this.journal = body.journal?.slice() ?? null;
    }
  }
}

/** Return what tells a function with its arguments from all others. */
export function keyOfQuery(name: string, args: Uint8Array): string {
  return `${name} ${keyOf(args)}`;
}

/** Return a function's name, and its arguments in bytes that are equal for equal ones. */
export function called(reference: AnyReference, args: unknown): [name: string, packed: Uint8Array] {
  return [functionName(reference), canonicalBytes(args ?? {})];
}
