/** Queries and mutations over HTTP, one request each: for servers that render pages, and for scripts. */

export { type Preloaded, preloadedQueryResult } from "../preloaded.js";
export { type FetchOptions, fetchMutation, fetchQuery, preloadQuery } from "./fetch.js";
