/** Values to bytes and back. Pure. */

import type { Value } from "./api.js";
import { ProtocolError } from "./errors.js";
import { VALUE_DEPTH_MAX } from "./limits.js";
import { Reader } from "./reader.js";
import { Writer } from "./writer.js";

/**
 * Return the bytes of a value. Fields that are `undefined` are left out.
 *
 * Throws `invalid_arguments`, naming the place, if it is none.
 */
export function encodeValue(value: unknown): Uint8Array {
  const writer = new Writer(false);
  writer.value(value, "$", 0);
  return writer.done();
}

/** Return bytes that are equal if the values are: of dicts with their fields in order. */
export function canonicalBytes(value: unknown): Uint8Array {
  const writer = new Writer(true);
  writer.value(value, "$", 0);
  return writer.done();
}

/** Return the value whose bytes these are, frozen. */
export function decodeValue(data: Uint8Array, depth = VALUE_DEPTH_MAX): Value {
  const reader = new Reader(data);
  const value = reader.value(depth);
  if (reader.left > 0) {
    throw new ProtocolError(`value: ${reader.left} bytes follow the value`);
  }
  return value;
}

/** Return bytes as text that two hold in common exactly if they are equal. */
export function keyOf(bytes: Uint8Array): string {
  let key = "";
  for (const byte of bytes) {
    key += String.fromCharCode(byte);
  }
  return key;
}
