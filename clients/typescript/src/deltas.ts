/**
 * How a client turns the result it holds into the new one.
 *
 * Pure. The new value shares every part that stayed with the old one: the same objects.
 */

import type { Value } from "./api.js";
import { isDict, isList, type List } from "./containers.js";
import { ProtocolError } from "./errors.js";
import { DELTA_DEPTH_MAX } from "./limits.js";
import { decodeValue } from "./values.js";

const ELEMENTS_MAX = 1 << 24; // of the lists that a delta makes: a few bytes can ask for many copies of the old ones

/** Return the value that `operations` make out of `old`. Throws `ProtocolError` if they do not fit it. */
export function applyDelta(old: Value, operations: Uint8Array): Value {
  return new Application().changed(old, decodeValue(operations, DELTA_DEPTH_MAX));
}

/** One delta at work. */
class Application {
  #elementsLeft = ELEMENTS_MAX;

  changed(old: Value, operations: Value | undefined): Value {
    fits(isList(operations));
    const [kind, first, removed, changed] = operations;
    const { length } = operations;
    if (kind === 1) {
      fits(length === 3 || length === 4);
      return this.#dict(old, first, removed, changed);
    }
    fits(kind === 0 && length === 2 && isList(first) && isList(old));
    const made: Value[] = [];
    for (const op of first) {
      fits(isList(op));
      this.#apply(old, made, op);
    }
    return Object.freeze(made);
  }

  /** Add what an operation makes of a list, one by one: other ways are slow where a list is frozen. */
  #apply(old: List, made: Value[], op: List): void {
    const [kind, first, second, third] = op;
    const { length } = op;
    if (kind === 0 && length === 3 && isIndex(first) && isIndex(second)) {
      this.#elementsLeft -= second;
      fits(first + second <= old.length && this.#elementsLeft >= 0);
      for (let place = first; place < first + second; place++) {
        made.push(old[place] as Value);
      }
    } else if (kind === 1 && length === 2 && isList(first)) {
      for (const fresh of first) {
        made.push(fresh);
      }
    } else if (kind === 2 && length === 4) {
      made.push(this.#dict(element(old, first), second, third));
    } else {
      fits(kind === 3 && length === 3);
      made.push(this.changed(element(old, first), second));
    }
  }

  #dict(old: Value, set: Value | undefined, removed: Value | undefined, changed: Value = {}): Value {
    fits(isDict(old) && isDict(set) && isList(removed) && isDict(changed));
    const made: Record<string, Value> = { ...old, ...set };
    for (const name of removed) {
      fits(typeof name === "string" && Object.hasOwn(old, name) && !Object.hasOwn(set, name));
      delete made[name];
    }
    for (const [name, operations] of Object.entries(changed)) {
      fits(Object.hasOwn(made, name) && !Object.hasOwn(set, name));
      made[name] = this.changed(made[name] as Value, operations);
    }
    return Object.freeze(made);
  }
}

function isIndex(value: Value | undefined): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

function element(old: List, index: Value | undefined): Value {
  fits(isIndex(index) && index < old.length);
  return old[index] as Value;
}

/** One message for all: which rule is broken is for the server's developers, whose own client says it. */
function fits(holds: boolean): asserts holds {
  if (!holds) {
    throw new ProtocolError("delta: unexpected operations");
  }
}
