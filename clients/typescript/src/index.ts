/** Live queries and mutations of a Headwater server. */

export type { ActionStream } from "./actionStream.js";
export {
  type AnyReference,
  type Args,
  type FunctionKind,
  type FunctionReference,
  functionName,
  functionReference,
  type Given,
  type Id,
  makeApi,
  type Page,
  type PageOptions,
  pageArgument,
  type Returns,
  type Value,
} from "./api.js";
export type { AuthChange, FetchToken } from "./authentication.js";
export { type ClientOptions, HeadwaterClient, type MutationOptions, type Watch } from "./client.js";
export type { ConnectionState } from "./connectionState.js";
export type { SocketConstructor } from "./environment.js";
export { ApplicationError, HeadwaterError, ProtocolError, type Retry } from "./errors.js";

export type { LocalStore } from "./localStore.js";
export { Moment } from "./moment.js";
export type { Paged, PagedQuery, PagedQueryArgs, PagedWatch, PageStatus } from "./pages.js";
export { VERSION } from "./version.js";
