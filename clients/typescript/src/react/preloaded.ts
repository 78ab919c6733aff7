/** Goes on in the browser with what the server has rendered. */

import { useMemo, useSyncExternalStore } from "react";
import type { AnyReference, Returns } from "../api.js";
import { type Preloaded, preloadedQuery, preloadedQueryResult } from "../preloaded.js";
import { useWatch } from "./watch.js";

/**
 * Return the result of a query that `preloadQuery` of `headwater/server` has fetched, and render again whenever
 * it changes. There is a result from the first render on, on the server and in the browser.
 */
export function usePreloadedQuery<F extends AnyReference<"query">>(from: Preloaded<F>): Returns<F> {
  const { name, args, value } = from;
  const [query, given] = useMemo(() => preloadedQuery({ name, args, value }), [name, args, value]);
  const first = useMemo(() => preloadedQueryResult<F>({ name, args, value }), [name, args, value]);
  const [watch] = useWatch(query, given as never);
  const look = () => {
    const result = watch.localResult();
    return result === undefined ? first : (result as Returns<F>); // null is a result
  };
  return useSyncExternalStore(watch.onUpdate, look, () => first);
}
