/** Live queries and mutations of a Headwater server. */

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
export { ApplicationError, HeadwaterError, ProtocolError, type Retry } from "./errors.js";

/** The client's version, which servers find in their logs. */
export const VERSION = "0.1.0";
