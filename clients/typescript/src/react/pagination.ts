/** Long lists in components, page by page. */

import { useMemo, useSyncExternalStore } from "react";
import { type Args, type FunctionReference, type Page, type PageOptions, pageArgument } from "../api.js";
import type { PagedWatch, PageOf, PageStatus } from "../pages.js";
import { useHeadwater } from "./provider.js";
import { keyOf, lingering, useKeyed } from "./watch.js";

/** A query that takes `PageOptions` and returns a `Page`. */
export type PagedQuery = FunctionReference<"query", never, Page<unknown>>;

type PageArgument<F> = {
  [Name in keyof Args<F>]-?: PageOptions extends Args<F>[Name] ? Name : never;
}[keyof Args<F>];

/** Arguments of a paginated query but for the page options. */
export type PagedQueryArgs<F> = Omit<Args<F>, PageArgument<F>>;

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
      const options = { initialNumItems, argument: pageArgument(query) };
      const pages = client.paginate(query, args as never, options);
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
