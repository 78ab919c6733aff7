/** Queries for `<Suspense>`: a component that waits is not rendered until there is a result. */

import { useSyncExternalStore } from "react";
import type { AnyReference, Given, Returns } from "../api.js";
import type { HeadwaterClient, Watch } from "../client.js";
import { useHeadwater } from "./provider.js";
import { useWatch } from "./watch.js";

const HOLD_MS = 5_000; // how long a result waits for the component that asked for it to be there

/**
 * Queries that components wait for. React throws away what a waiting component has made, so what they wait
 * for is kept here, and the query is followed until they are there and follow it themselves.
 */
const awaited = new WeakMap<HeadwaterClient, Map<string, Promise<void>>>();

/**
 * Return a query's result; while there is none, the `<Suspense>` around the component shows its fallback.
 * Otherwise like `useQuery`.
 */
export function useSuspenseQuery<F extends AnyReference<"query">>(query: F, ...[args]: Given<F>): Returns<F> {
  const client = useHeadwater();
  const [watch, key] = useWatch(query, args);
  // A server waits as well, and has the result then; so has the browser that takes over what it rendered.
  const result = useSyncExternalStore(watch.onUpdate, watch.localResult, watch.localResult);
  if (result === undefined) {
    throw arrival(client, key, watch); // `use` would have to be called at each render, with something to wait for
  }
  return result;
}

/** Return what resolves when a query has a result or an error; the same until then. */
function arrival(client: HeadwaterClient, key: string, watch: Watch<unknown>): Promise<void> {
  const ours = awaited.get(client) ?? new Map<string, Promise<void>>();
  awaited.set(client, ours);
  const found = ours.get(key);
  if (found !== undefined) {
    return found;
  }
  const promise = new Promise<void>((resolve) => {
    const unfollow = watch.onUpdate(() => {
      if (ours.delete(key)) {
        setTimeout(unfollow, HOLD_MS);
        resolve();
      }
    });
  });
  ours.set(key, promise);
  return promise;
}
