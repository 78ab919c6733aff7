/**
 * How a client turns the result it holds into the new one.
 *
 * Pure. The new value shares every part that stayed with the old one: the same objects.
 */

import type { Value } from "./api.js";
import { type Dict, isDict, isList, type List } from "./containers.js";
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
    if (isList(operations)) {
      const [kind, first, removed, changed] = operations;
      if (kind === 0 && operations.length === 2 && isList(first)) {
        return this.#list(old, first);
      }
      const patches = kind === 1 && isDict(first) && isList(removed);
      if (patches && operations.length === 3) {
        return Object.freeze(patched(old, first, removed));
      }
      if (patches && operations.length === 4 && isDict(changed)) {
        return this.#fields(old, first, removed, changed);
      }
    }
    throw misfit();
  }

  #list(old: Value, ops: List): Value {
    if (!isList(old)) {
      throw misfit();
    }
    const made: Value[] = [];
    for (const op of ops) {
      this.#apply(old, made, isList(op) ? op : []);
    }
    return Object.freeze(made);
  }

  #apply(old: List, made: Value[], op: List): void {
    const [kind, first, second, third] = op;
    if (kind === 0 && op.length === 3 && isIndex(first) && isIndex(second)) {
      this.#elementsLeft -= second;
      if (first + second > old.length || this.#elementsLeft < 0) {
        throw misfit();
      }
      for (let place = first; place < first + second; place++) {
        made.push(old[place] as Value);
      }
    } else if (kind === 1 && op.length === 2 && isList(first)) {
      for (const fresh of first) {
        made.push(fresh); // one by one: a call takes only so many arguments
      }
    } else if (kind === 2 && op.length === 4 && isDict(second) && isList(third)) {
      made.push(Object.freeze(patched(element(old, first), second, third)));
    } else if (kind === 3 && op.length === 3) {
      made.push(this.changed(element(old, first), second));
    } else {
      throw misfit();
    }
  }

  #fields(old: Value, set: Dict, removed: List, changed: Dict): Value {
    const made = patched(old, set, removed);
    for (const [name, operations] of Object.entries(changed)) {
      if (Object.hasOwn(set, name) || !Object.hasOwn(made, name)) {
        throw misfit();
      }
      made[name] = this.changed(made[name] as Value, operations);
    }
    return Object.freeze(made);
  }
}

function isIndex(value: Value | undefined): value is number {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0;
}

function element(old: List, index: Value | undefined): Value {
  const found = isIndex(index) ? old[index] : undefined;
  if (found === undefined) {
    throw misfit();
  }
  return found;
}

function patched(old: Value, set: Dict, removed: List): Record<string, Value> {
  if (!isDict(old)) {
    throw misfit();
  }
  const made: Record<string, Value> = { ...old, ...set };
  for (const name of removed) {
    if (typeof name !== "string" || !Object.hasOwn(old, name) || Object.hasOwn(set, name)) {
      throw misfit();
    }
    delete made[name];
  }
  return made;
}

/** One message for all: which rule is broken is for the server's developers, whose own client says it. */
function misfit(): ProtocolError {
  return new ProtocolError("delta: operations that do not fit the value");
}
