/** One subscription of a session: what the server has told of it, and what it shows. Pure. */

import type { Value } from "./api.js";
import { applyDelta } from "./deltas.js";
import { ProtocolError } from "./errors.js";
import type { Outcome } from "./events.js";
import { errorFrom } from "./failures.js";
import type { ChangeBody } from "./messages.js";
import { shared } from "./sharing.js";
import { decodeValue, keyOf } from "./values.js";

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
  /** What has come since the last step, if anything. */
  arrived: Outcome | undefined;
  /** What stands since then; undefined before the first result. */
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
      case "Value":
        return { value: sharedWith(this.value, decodeValue(body.content)) };
      case "Delta":
        if (this.digest === null || this.value === undefined) {
          throw new ProtocolError(`Transition.changes: a delta for query ${number}, which has no value`);
        }
        return { value: applyDelta(this.value, body.operations) };
      case "Unchanged":
        if (this.digest === null || keyOf(body.digest) !== keyOf(this.digest)) {
          throw new ProtocolError(
            `Transition.changes: query ${number} has another value than 'unchanged' says`,
          );
        }
        return undefined;
      case "Failed":
        return { error: errorFrom(body.error) };
      case "Removed":
        return undefined;
    }
  }

  /** Take over a change, with what `outcomeOf` returned for it. */
  apply(body: ChangeBody, outcome: Outcome | undefined): void {
    switch (body.type) {
      case "Value":
      case "Delta":
        this.value = outcome?.value;
        this.digest = body.digest;
        this.journal = body.journal;
        break;
      case "Unchanged":
        this.journal = body.journal;
        break;
      case "Failed":
        this.value = undefined;
        this.digest = null;
        break;
      case "Removed":
        break;
    }
  }
}

function sharedWith(held: Value | undefined, fresh: Value): Value {
  return held === undefined ? fresh : shared(held, fresh);
}

/** Return what tells a function with its arguments from all others. */
export function keyOfQuery(name: string, args: Uint8Array): string {
  return `${name} ${keyOf(args)}`;
}
