/** Bytes as base64 text. Pure. */

import { ProtocolError } from "./errors.js";

/** Return the text. */
export function toBase64(bytes: Uint8Array): string {
  let text = "";
  for (const byte of bytes) {
    text += String.fromCharCode(byte);
  }
  return btoa(text);
}

/** Return the bytes of a text. Throws `ProtocolError` if it is no base64. */
export function fromBase64(text: string): Uint8Array {
  try {
    return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  } catch {
    throw new ProtocolError("expected base64");
  }
}
