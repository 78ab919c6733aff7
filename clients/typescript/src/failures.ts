/** Errors as they cross the wire. Pure. */

import { errorFor, type HeadwaterError } from "./errors.js";
import type { ErrorBody } from "./messages.js";
import { decodeValue } from "./values.js";

/** Return the error for one that came over the wire. Throws `ProtocolError` if its data is no encoded value. */
export function errorFrom(body: ErrorBody): HeadwaterError {
  return errorFor(body.code, body.message, body.data === null ? null : decodeValue(body.data));
}
