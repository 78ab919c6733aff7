/**
 * Structural sharing: a new value made of as many parts of the old one as are equal.
 *
 * Pure. What shows rows then sees by `===` which of them changed.
 */

import type { Value } from "./api.js";
import { type Dict, isDict, isList, type List } from "./containers.js";
import { isSameMoment } from "./moment.js";
import { decodeValue, encodeValue, keyOf as keyOfBytes } from "./values.js";

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
    return sharedList(isList(old) ? old : [], fresh);
  }
  if (isDict(fresh)) {
    return sharedDict(isDict(old) ? old : {}, fresh);
  }
  return sharedLeaf(old, fresh);
}

function sharedList(old: List, fresh: List): Value {
  let byKey: Map<Value, Value> | undefined; // made once an element is not at its old place
  const made = fresh.map((element, place) => {
    const key = keyOf(element);
    const beside = old[place];
    if (beside !== undefined && keyOf(beside) === key) {
      return shared(beside, element);
    }
    byKey ??= new Map(old.map((other) => [keyOf(other), other]));
    return shared(byKey.get(key) ?? beside, element);
  });
  const same = made.length === old.length && made.every((element, place) => Object.is(element, old[place]));
  return Object.freeze(same ? old : made);
}

/** Return what tells an element from its neighbours: the id of a row, else the element itself. */
function keyOf(element: Value): Value {
  return isDict(element) ? (element._id ?? element) : element;
}

function sharedDict(old: Dict, fresh: object): Value {
  // A field that is `undefined` is none, see `encodeValue`.
  const fields = Object.entries(fresh).filter(([, field]) => field !== undefined);
  const made = fields.map(([name, field]): [string, Value] => [name, shared(ownField(old, name), field)]);
  const same =
    made.length === Object.keys(old).length &&
    made.every(([name, field]) => Object.is(field, ownField(old, name)));
  return Object.freeze(same ? old : Object.fromEntries(made));
}

function ownField(dict: Dict, name: string): Value | undefined {
  return Object.hasOwn(dict, name) ? dict[name] : undefined;
}

/** The same for a value without parts, which is copied if it could be changed. */
function sharedLeaf(old: Value | undefined, fresh: Value): Value {
  if (fresh === null || typeof fresh === "number" || typeof fresh === "boolean") {
    return fresh;
  }
  if (
    (old instanceof Date && fresh instanceof Date && isSameMoment(old, fresh)) ||
    (old instanceof Uint8Array && fresh instanceof Uint8Array && keyOfBytes(old) === keyOfBytes(fresh))
  ) {
    return old;
  }
  const bytes = encodeValue(fresh);
  return typeof fresh === "object" ? decodeValue(bytes) : fresh;
}
