"use client";

/** Headwater in React components. */

export type { PagedQuery, PagedQueryArgs } from "../pages.js";
export {
  type AccountOfBundle,
  Authenticated,
  AuthLoading,
  type AuthOfService,
  type AuthState,
  HeadwaterProviderWithAuth,
  Unauthenticated,
  useAccountAuth,
  useHeadwaterAuth,
} from "./auth.js";
export {
  type OptimisticUpdate,
  type ReactAction,
  type ReactMutation,
  useAction,
  useMutation,
} from "./calls.js";
export { useConnectionState } from "./connection.js";
export {
  type PagedResult,
  usePaginatedQuery,
} from "./pagination.js";
export { usePreloadedQuery } from "./preloaded.js";
export { HeadwaterProvider, useHeadwater } from "./provider.js";
export { type QueryRequests, type QueryResults, useQueries, useQuery } from "./query.js";
export { useSuspenseQuery } from "./suspense.js";
export type { GivenOrSkip } from "./watch.js";
