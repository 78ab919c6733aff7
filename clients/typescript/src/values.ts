/** Values to bytes and back. Pure. */

export { decodeValue } from "./reader.js";
export { canonicalBytes, encodeValue } from "./writer.js";

/** Return bytes as text that two hold in common exactly if they are equal. */
export function keyOf(bytes: Uint8Array): string {
  let key = "";
  for (const byte of bytes) {
    key += String.fromCharCode(byte);
  }
  return key;
}
