/** A query's result on its way from a server that renders to the browser. Pure. */

import { type AnyReference, functionName, functionReference, type Given, type Returns } from "./api.js";
import { fromBase64, toBase64 } from "./base64.js";
import { canonicalBytes, decodeValue } from "./values.js";

declare const query: unique symbol;

/** A query with arguments and result: plain texts, which may be handed from server to client components. */
export interface Preloaded<F extends AnyReference<"query">> {
  readonly name: string;
  /** Encoded arguments and result, in base64. */
  readonly args: string;
  readonly value: string;
  readonly [query]?: F;
}

/** Return a query with its encoded result. */
export function preloaded<F extends AnyReference<"query">>(
  reference: F,
  [args]: Given<F>,
  value: string,
): Preloaded<F> {
  return { name: functionName(reference), args: toBase64(canonicalBytes(args ?? {})), value };
}

/** Return the result of a preloaded query. */
export function preloadedQueryResult<F extends AnyReference<"query">>(from: Preloaded<F>): Returns<F> {
  return decodeValue(fromBase64(from.value)) as Returns<F>;
}

/** Return the query and its arguments. */
export function preloadedQuery(from: Preloaded<never>): [query: AnyReference<"query">, args: unknown] {
  return [functionReference<"query", never, unknown>(from.name), decodeValue(fromBase64(from.args))];
}
