/** A query as a store for `useSyncExternalStore`. */

import { useMemo } from "react";
import { type AnyReference, type Args, functionName, type Returns } from "../api.js";
import type { HeadwaterClient, Watch } from "../client.js";
import { keyOfQuery } from "../query.js";
import { canonicalBytes } from "../values.js";
import { useHeadwater } from "./provider.js";

/** Arguments of a query, or `"skip"` to ask nothing; they may be left out where none is needed. */
export type GivenOrSkip<F> =
  Record<never, never> extends Args<F> ? [args?: Args<F> | "skip"] : [args: Args<F> | "skip"];

const SKIPPED: Watch<never> = { onUpdate: () => () => {}, localResult: () => undefined };

/** What a server renders: nothing has come yet. */
export function nothing(): undefined {
  return undefined;
}

/** Return text that is equal for equal queries. */
export function keyOf(query: AnyReference<"query">, args: unknown): string {
  return args === "skip" ? "skip" : keyOfQuery(functionName(query), canonicalBytes(args ?? {}));
}

/** Calls `callback` whenever there is something new; returns what ends that. */
export type Follow = (callback: () => void) => () => void;

/**
 * Return the same, but followers may leave and come back in one turn without what they follow ending in between.
 *
 * React does that whenever one component takes the place of another, and in strict mode with every one: the
 * result would be gone and have to come again. Who has left is not called any more.
 */
export function lingering(follow: Follow): Follow {
  return (callback) => {
    let follows = true;
    const unfollow = follow(() => {
      if (follows) {
        callback();
      }
    });
    return () => {
      follows = false;
      queueMicrotask(unfollow);
    };
  };
}

/** Return a query to look at, without a React hook. */
export function watchOf<F extends AnyReference<"query">>(
  client: HeadwaterClient,
  query: F,
  args: unknown,
): Watch<Returns<F>> {
  if (args === "skip") {
    return SKIPPED;
  }
  const watch = client.watch<AnyReference<"query">>(query, (args ?? {}) as never) as Watch<Returns<F>>;
  return { onUpdate: lingering(watch.onUpdate), localResult: watch.localResult };
}

/** Return what `make` returns, made anew only when one of the keys changes: they say what matters of all it uses. */
export function useKeyed<T>(make: () => T, ...keys: readonly unknown[]): T {
  // biome-ignore lint/correctness/useExhaustiveDependencies: see above
  return useMemo(make, keys);
}

/** Return a query to look at: the same as long as query and arguments are equal, and what tells them apart. */
export function useWatch<F extends AnyReference<"query">>(
  query: F,
  args: Args<F> | "skip" | undefined,
): readonly [watch: Watch<Returns<F>>, key: string] {
  const client = useHeadwater();
  const key = keyOf(query, args);
  return [useKeyed(() => watchOf(client, query, args), client, key), key];
}
