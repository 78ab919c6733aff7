/** Queries, mutations and actions over HTTP, one request each: for servers that render pages, and for scripts. */

export { type Preloaded, preloadedQueryResult } from "../preloaded.js";
export { type FetchOptions, fetchAction, fetchMutation, fetchQuery, preloadQuery } from "./fetch.js";
