/**
 * What a generated file says of a deployed bundle: functions as typed references.
 *
 * Pure. A reference carries a name at run time; its arguments and its result are types alone.
 */

import { HeadwaterError } from "./errors.js";

/**
 * What crosses the wire. A Python `int` is a `number` (a `bigint` beyond ±(2^53 − 1)), an `Int64` always a
 * `bigint`, bytes are a `Uint8Array`, a datetime is a `Date`. Values are shared between results: they are
 * frozen, and replaced instead of changed.
 */
export type Value =
  | null
  | boolean
  | number
  | bigint
  | string
  | Uint8Array
  | Date
  | readonly Value[]
  | { readonly [key: string]: Value };

declare const table: unique symbol;

/** The id of a document: text, told apart by its table. */
export type Id<Table extends string> = string & { readonly [table]: Table };

/** What a function of a bundle is; a `stream` is an action whose result comes in pieces. */
export type FunctionKind = "query" | "mutation" | "action" | "stream";

const NAME: unique symbol = Symbol("name");
const PAGE_ARGUMENT: unique symbol = Symbol("pages");
declare const signature: unique symbol;

/** A function of a bundle. `functionName` tells what it is called by. */
export interface FunctionReference<Kind extends FunctionKind, Arguments, Result> {
  readonly [NAME]: string;
  readonly [PAGE_ARGUMENT]?: string | undefined;
  readonly [signature]?: { readonly kind: Kind; readonly call: (args: Arguments) => Result };
}

/** Any reference of a kind. */
export type AnyReference<Kind extends FunctionKind = FunctionKind> = FunctionReference<Kind, never, unknown>;

/** The arguments of a function. */
export type Args<F> =
  F extends FunctionReference<infer _Kind, infer Arguments, infer _Result> ? Arguments : never;

/** The result of a function; of one that streams, what each piece is. */
export type Returns<F> =
  F extends FunctionReference<infer _Kind, infer _Arguments, infer Result> ? Result : never;

/** Parameters that hand over a function's arguments; they may be left out where none is needed. */
export type Given<F> = Record<never, never> extends Args<F> ? [args?: Args<F>] : [args: Args<F>];

/** Some rows of a query, and where to go on. */
export interface Page<T> {
  readonly page: readonly T[];
  /** Whether there is no more behind it. */
  readonly isDone: boolean;
  /** `cursor` of the next page. */
  readonly continueCursor: string;
}

/** Which page of a query; what a function takes as `PageOptions`. */
export interface PageOptions {
  readonly numItems?: number;
  /** Where the page begins; null: it is the first. */
  readonly cursor?: string | null;
  /** Where it ends, instead of `numItems`. */
  readonly endCursor?: string | null;
  /** Says nothing to the server, but makes it another page to the client. */
  readonly id?: number | string;
}

/** Return the name that a reference stands for, `module:function`. */
export function functionName(reference: AnyReference): string {
  const name = reference[NAME];
  if (!name) {
    throw new HeadwaterError("invalid_request", "expected a function, such as api.messages.list");
  }
  return name;
}

/** Return the name of a function's argument of type `PageOptions`, which is `options` unless the api knows better. */
export function pageArgument(reference: AnyReference): string {
  return reference[PAGE_ARGUMENT] ?? "options";
}

/**
 * Return a reference to a function by its name, for what no generated file describes. `argument` is the name of its
 * argument of type `PageOptions`, if it has one that is not called `options`.
 */
export function functionReference<
  Kind extends FunctionKind,
  Arguments = Record<string, Value>,
  Result = Value,
>(name: string, argument?: string): FunctionReference<Kind, Arguments, Result> {
  return Object.freeze({ [NAME]: name, [PAGE_ARGUMENT]: argument });
}

/**
 * Return the api of a bundle: `makeApi<Api>().messages.list` stands for `messages:list`, and
 * `.admin.users.list` for `admin/users:list`. The same path is the same object each time.
 *
 * `pageArguments` names, by function, the arguments of type `PageOptions` that are not called `options`.
 */
export function makeApi<Api extends object>(pageArguments: Readonly<Record<string, string>> = {}): Api {
  return place("", "", new Map(Object.entries(pageArguments))) as Api;
}

/** Return what stands at a path: as a `module` of functions, as a function of a `name`; both empty at the top. */
function place(module: string, name: string, pageArguments: ReadonlyMap<string, string>): object {
  const below = new Map<string, object>();
  return new Proxy(Object.freeze({}), {
    get(_target, key) {
      if (typeof key === "symbol") {
        return key === NAME ? name : key === PAGE_ARGUMENT ? pageArguments.get(name) : undefined;
      }
      let found = below.get(key);
      if (!found) {
        found = place(module ? `${module}/${key}` : key, module && `${module}:${key}`, pageArguments);
        below.set(key, found);
      }
      return found;
    },
  });
}
