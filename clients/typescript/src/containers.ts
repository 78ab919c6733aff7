/** Which values hold others. Pure. */

import type { Value } from "./api.js";

export type List = readonly Value[];
export type Dict = { readonly [name: string]: Value };

/** Tell whether something is a list. `Array.isArray` does not narrow to a read-only one. */
export function isList(value: unknown): value is List {
  return Array.isArray(value);
}

/** Tell whether something is a dict: an object of no class. */
export function isDict(value: unknown): value is Dict {
  const prototype: unknown = typeof value === "object" && value !== null && Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null;
}
