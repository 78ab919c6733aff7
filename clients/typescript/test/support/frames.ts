import { encodeValue } from "../../src/values.js";

/** Return the frame of a message as it stands on the wire. */
export function frameOf(message: readonly unknown[]): Uint8Array {
  return encodeValue(message);
}
