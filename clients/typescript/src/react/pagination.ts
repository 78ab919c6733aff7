/** Long lists in components, page by page. */

import { useMemo, useSyncExternalStore } from "react";
import type { PagedQuery, PagedQueryArgs, PagedWatch, PageOf, PageStatus } from "../pages.js";
import { useHeadwater } from "./provider.js";
import { keyOf, lingering, useKeyed } from "./watch.js";

/** What the loaded pages show together. */
export interface PagedResult<T> {
  readonly results: readonly T[];
  readonly status: PageStatus;
  /** Whether a page is on its way. */
  readonly isLoading: boolean;
  /** Ask for the next page; of no effect unless the status is `CanLoadMore`. */
  readonly loadMore: (numItems?: number) => void;
}

const NOTHING = Object.freeze({ results: [], status: "LoadingFirstPage" as const });
const SKIPPED: PagedWatch<never> = {
  onUpdate: () => () => {},
  localResult: () => NOTHING,
  loadMore: () => false,
};

/**
 * Return all loaded pages of a query as one live list, and render again whenever it changes. There are no gaps
 * and no doubles while rows come and go. `"skip"` for the arguments asks nothing. Throws what the query fails
 * with.
 *
 * `args` are its arguments but for the page options; another `initialNumItems` begins anew, as other arguments do.
 */
export function usePaginatedQuery<F extends PagedQuery>(
  query: F,
  args: PagedQueryArgs<F> | "skip",
  { initialNumItems }: { readonly initialNumItems: number },
): PagedResult<PageOf<F>> {
  const client = useHeadwater();
  const key = keyOf(query, args);
  const watch = useKeyed<PagedWatch<PageOf<F>>>(
    () => {
      if (args === "skip") {
        return SKIPPED;
      }
      const pages = client.paginate(query, args, { initialNumItems });
      return { ...pages, onUpdate: lingering(pages.onUpdate) };
    },
    client,
    key,
    initialNumItems,
  );
  const shown = useSyncExternalStore(watch.onUpdate, watch.localResult, SKIPPED.localResult);
  return useMemo(() => {
    const isLoading = shown.status === "LoadingFirstPage" || shown.status === "LoadingMore";
    return { ...shown, isLoading, loadMore: (numItems) => void watch.loadMore(numItems) };
  }, [shown, watch]);
}
