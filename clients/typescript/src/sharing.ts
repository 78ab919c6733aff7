/**
 * Structural sharing: a new value made of as many parts of the old one as are equal.
 *
 * Pure. What shows rows then sees by `===` which of them changed.
 */

import type { Value } from "./api.js";
import { type Dict, isDict, isList, type List } from "./containers.js";
import { microsecondOf } from "./moment.js";
import { decodeValue, encodeValue } from "./values.js";

/**
 * Return a value equal to `fresh` in which every part that equals its counterpart in `old` *is* that
 * counterpart; `old` itself if they are equal. What is new in it is copied and frozen. Throws
 * `invalid_arguments` where that is no value.
 *
 * Counterparts are fields of a name, rows of an `_id`, and else elements of a place.
 */
export function shared(old: Value | undefined, fresh: Value): Value {
  if (Object.is(old, fresh)) {
    return fresh;
  }
  if (isList(fresh)) {
    return sharedList(isList(old) ? old : undefined, fresh);
  }
  if (isDict(fresh)) {
    return sharedDict(isDict(old) ? old : undefined, fresh);
  }
  return old !== undefined && equalLeaves(old, fresh) ? old : leaf(fresh);
}

/** Return a value without parts, a copy if it could be changed. Throws `invalid_arguments` if it is no value. */
function leaf(fresh: Value): Value {
  if (fresh === null || typeof fresh === "number" || typeof fresh === "boolean") {
    return fresh;
  }
  const bytes = encodeValue(fresh);
  return typeof fresh === "object" ? decodeValue(bytes) : fresh;
}

function sharedList(old: List | undefined, fresh: List): Value {
  if (old === undefined) {
    return Object.freeze(fresh.map((element) => shared(undefined, element)));
  }
  const counterparts = new Counterparts(old);
  const made = fresh.map((element, place) => shared(counterparts.of(element, place), element));
  const same = made.length === old.length && made.every((element, place) => Object.is(element, old[place]));
  return same ? old : Object.freeze(made);
}

/** The elements of an old list, as those of a new one look for theirs. */
class Counterparts {
  readonly #old: List;
  #byKey: Map<Value, Value> | undefined; // made once an element is not at its old place

  constructor(old: List) {
    this.#old = old;
  }

  of(element: Value, place: number): Value | undefined {
    const key = keyOf(element);
    const beside = this.#old[place];
    if (beside !== undefined && keyOf(beside) === key) {
      return beside;
    }
    this.#byKey ??= new Map(this.#old.map((other) => [keyOf(other), other]));
    return this.#byKey.get(key) ?? beside;
  }
}

/** Return what tells an element from its neighbours: the id of a row, else the element itself. */
function keyOf(element: Value): Value {
  return isDict(element) ? (element._id ?? element) : element;
}

function sharedDict(old: Dict | undefined, fresh: object): Value {
  // A field that is `undefined` is none, see `encodeValue`.
  const fields = Object.entries(fresh).filter(([, field]) => field !== undefined);
  const made = fields.map(([name, field]): [string, Value] => [name, shared(ownField(old, name), field)]);
  const same =
    old !== undefined &&
    made.length === Object.keys(old).length &&
    made.every(([name, field]) => Object.hasOwn(old, name) && Object.is(field, old[name]));
  return same ? old : Object.freeze(Object.fromEntries(made));
}

function ownField(dict: Dict | undefined, name: string): Value | undefined {
  return dict !== undefined && Object.hasOwn(dict, name) ? dict[name] : undefined;
}

function equalLeaves(one: Value, other: Value): boolean {
  if (one instanceof Uint8Array && other instanceof Uint8Array) {
    return one.length === other.length && one.every((byte, place) => byte === other[place]);
  }
  if (one instanceof Date && other instanceof Date) {
    return one.getTime() === other.getTime() && microsecondOf(one) === microsecondOf(other);
  }
  return false; // all others are equal only if they are the same
}
