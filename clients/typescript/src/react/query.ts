/** Live results in components. */

import { useSyncExternalStore } from "react";
import type { AnyReference, Args, Returns } from "../api.js";
import type { Watch } from "../client.js";
import { useHeadwater } from "./provider.js";
import { type GivenOrSkip, keyOf, nothing, useKeyed, useWatch, watchOf } from "./watch.js";

/**
 * Return a query's result, and render again whenever it changes. Undefined while it loads, and with `"skip"`
 * for the arguments. Throws what the query fails with, for an error boundary.
 *
 * Parts of a result that stayed the same are the same objects as before.
 */
export function useQuery<F extends AnyReference<"query">>(
  query: F,
  ...[args]: GivenOrSkip<F>
): Returns<F> | undefined {
  const [watch] = useWatch(query, args);
  return useSyncExternalStore(watch.onUpdate, watch.localResult, nothing);
}

/** Queries by names of one's own, each with its arguments. */
export type QueryRequests<Queries extends Record<string, AnyReference<"query">>> = {
  readonly [Name in keyof Queries]: { readonly query: Queries[Name]; readonly args: Args<Queries[Name]> };
};

/** What they came to: a result, undefined while it loads, or the error. */
export type QueryResults<Queries extends Record<string, AnyReference<"query">>> = {
  readonly [Name in keyof Queries]: Returns<Queries[Name]> | undefined | Error;
};

/**
 * Return the results of any number of queries by the names they have in `requests`. One that fails does not
 * throw: its error stands where its result would.
 */
export function useQueries<Queries extends Record<string, AnyReference<"query">>>(
  requests: QueryRequests<Queries>,
): QueryResults<Queries> {
  const client = useHeadwater();
  const named = Object.entries<{ query: AnyReference<"query">; args: unknown }>(requests);
  const key = JSON.stringify(named.map(([name, { query, args }]) => [name, keyOf(query, args)]));
  const group = useKeyed(
    () => new WatchGroup(named.map(([name, { query, args }]) => [name, watchOf(client, query, args)])),
    client,
    key,
  );
  return useSyncExternalStore(group.onUpdate, group.results, group.none) as QueryResults<Queries>;
}

type Results = Readonly<Record<string, unknown>>;

/** Several queries as one store. */
class WatchGroup {
  readonly none: () => Results;
  private readonly watches: readonly (readonly [name: string, watch: Watch<unknown>])[];
  private last: Results | undefined;

  constructor(watches: readonly (readonly [string, Watch<unknown>])[]) {
    this.watches = watches;
    const none = Object.freeze(Object.fromEntries(watches.map(([name]) => [name, undefined])));
    this.none = () => none;
  }

  readonly onUpdate = (callback: () => void): (() => void) => {
    const ends = this.watches.map(([, watch]) => watch.onUpdate(callback));
    return () => {
      for (const end of ends) {
        end();
      }
    };
  };

  /** Return the results; the same object as long as none has changed. */
  readonly results = (): Results => {
    const found = this.watches.map(([name, watch]) => [name, resultOrError(watch)] as const);
    const { last } = this;
    if (last === undefined || found.some(([name, result]) => last[name] !== result)) {
      this.last = Object.freeze(Object.fromEntries(found));
    }
    return this.last as Results;
  };
}

function resultOrError(watch: Watch<unknown>): unknown {
  try {
    return watch.localResult();
  } catch (error) {
    return error;
  }
}
