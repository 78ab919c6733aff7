/**
 * Bytes of msgpack, read from front to back.
 *
 * Pure. What stands there and is not expected is a `ProtocolError` that says so; lengths are checked against
 * the bytes that are there before anything is made of them.
 */

import type { Value } from "./api.js";
import { ProtocolError } from "./errors.js";
import { UNKNOWN_VALUES_MAX, VALUE_DEPTH_MAX } from "./limits.js";
import { dateOf } from "./moment.js";

const TEXT = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const SHORT_TEXT_BYTES = 24; // below, it is faster to look at the bytes than to call the decoder

/** Return the value whose bytes these are, frozen. */
export function decodeValue(data: Uint8Array, depth = VALUE_DEPTH_MAX): Value {
  const reader = new Reader(data);
  const value = reader.value(depth);
  if (reader.left > 0) {
    throw new ProtocolError(`unexpected ${reader.left} bytes behind a value`);
  }
  return value;
}

export class Reader {
  readonly #data: Uint8Array;
  readonly #view: DataView;
  #pos = 0;
  readonly #keys: string[][] = []; // names of the dict before, by the depth that is left

  constructor(data: Uint8Array) {
    this.#data = data;
    this.#view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  }

  /** How many bytes are left. */
  get left(): number {
    return this.#data.length - this.#pos;
  }

  /** Read an integer of a message: 0 to 2^53 − 1, in any integer format. */
  uint(): number {
    const value = this.#number(this.#byte());
    if (typeof value !== "number" || value < 0) {
      throw new ProtocolError("expected an integer from 0 to 2^53-1");
    }
    return value;
  }

  text(): string {
    const byte = this.#byte();
    const length = (byte & 0xe0) === 0xa0 ? byte & 31 : this.#sized(byte, 0xd9, 3);
    if (length === undefined) {
      throw new ProtocolError("expected text");
    }
    return this.#textOf(length);
  }

  /** Read bytes; what is returned is a view of the frame. */
  bytes(): Uint8Array {
    const length = this.#sized(this.#byte(), 0xc4, 3);
    if (length === undefined) {
      throw new ProtocolError("expected bytes (bin)");
    }
    return this.#taken(length);
  }

  /** Read the head of an array and return how many elements it has. */
  arrayHead(): number {
    const byte = this.#byte();
    const length = (byte & 0xf0) === 0x90 ? byte & 15 : this.#sized(byte, 0xdc, 2, 2);
    if (length === undefined) {
      throw new ProtocolError("expected an array");
    }
    return length;
  }

  /** Read nil if it stands here. */
  nil(): boolean {
    const found = this.#data[this.#pos] === 0xc0;
    this.#pos += found ? 1 : 0;
    return found;
  }

  /** Step over elements that this version does not know, so many at most. */
  skip(count: number): void {
    let left = count;
    for (let walked = 0; left > 0; walked++) {
      if (walked === UNKNOWN_VALUES_MAX) {
        throw new ProtocolError(`more than ${UNKNOWN_VALUES_MAX} values behind the known fields`);
      }
      left += this.#step() - 1;
    }
  }

  /** Read a value of lists and dicts at most `depth` inside one another; it is frozen. */
  value(depth: number): Value {
    const byte = this.#byte();
    if (byte < 0x80 || byte >= 0xe0) {
      return byte < 0x80 ? byte : byte - 0x100;
    }
    if (byte < 0xa0) {
      return byte < 0x90 ? this.#dict(byte & 15, depth) : this.#list(byte & 15, depth);
    }
    if (byte < 0xc0) {
      return this.#textOf(byte & 31);
    }
    switch (byte) {
      case 0xc0:
        return null;
      case 0xc2:
        return false;
      case 0xc3:
        return true;
      case 0xc4:
      case 0xc5:
      case 0xc6:
        return this.#taken(this.#sized(byte, 0xc4, 3) ?? 0).slice();
      case 0xca:
        return this.#view.getFloat32(this.#advanced(4));
      case 0xcb:
        return this.#view.getFloat64(this.#advanced(8));
      case 0xd9:
      case 0xda:
      case 0xdb:
        return this.#textOf(this.#sized(byte, 0xd9, 3) ?? 0);
      case 0xdc:
      case 0xdd:
        return this.#list(this.#sized(byte, 0xdc, 2, 2) ?? 0, depth);
      case 0xde:
      case 0xdf:
        return this.#dict(this.#sized(byte, 0xde, 2, 2) ?? 0, depth);
      default:
        return this.#number(byte) ?? this.#extension(byte);
    }
  }

  #byte(): number {
    return this.#view.getUint8(this.#advanced(1));
  }

  /** Step over so many bytes and return where they begin. */
  #advanced(count: number): number {
    const start = this.#pos;
    if (count > this.#data.length - start) {
      throw new ProtocolError("the bytes end inside the value");
    }
    this.#pos = start + count;
    return start;
  }

  #taken(count: number): Uint8Array {
    const start = this.#advanced(count);
    return this.#data.subarray(start, start + count);
  }

  /** Return the length behind one of `kinds` bytes that follow `first`, the first of `width` bytes; else undefined. */
  #sized(byte: number, first: number, kinds: number, width = 1): number | undefined {
    const kind = byte - first;
    if (kind < 0 || kind >= kinds) {
      return undefined;
    }
    const bytes = width << kind;
    const at = this.#advanced(bytes);
    return bytes === 1
      ? this.#view.getUint8(at)
      : bytes === 2
        ? this.#view.getUint16(at)
        : this.#view.getUint32(at);
  }

  /** Read the integer that begins with `byte`, undefined if it begins none. */
  #number(byte: number): number | bigint | undefined {
    const view = this.#view;
    switch (byte) {
      case 0xcc:
        return view.getUint8(this.#advanced(1));
      case 0xcd:
        return view.getUint16(this.#advanced(2));
      case 0xce:
        return view.getUint32(this.#advanced(4));
      case 0xcf:
        return safe(view.getBigUint64(this.#advanced(8)));
      case 0xd0:
        return view.getInt8(this.#advanced(1));
      case 0xd1:
        return view.getInt16(this.#advanced(2));
      case 0xd2:
        return view.getInt32(this.#advanced(4));
      case 0xd3:
        return safe(view.getBigInt64(this.#advanced(8)));
      default:
        return byte < 0x80 ? byte : byte >= 0xe0 ? byte - 0x100 : undefined;
    }
  }

  #textOf(length: number): string {
    const start = this.#advanced(length);
    const end = start + length;
    if (length < SHORT_TEXT_BYTES) {
      let text = "";
      let place = start;
      for (; place < end; place++) {
        const byte = this.#data[place] ?? 0;
        if (byte >= 0x80) {
          break;
        }
        text += String.fromCharCode(byte);
      }
      if (place === end) {
        return text;
      }
    }
    return decoded(this.#data.subarray(start, end));
  }

  #list(length: number, depth: number): Value {
    this.#fits(length, depth);
    const list: Value[] = [];
    for (let place = 0; place < length; place++) {
      list.push(this.value(depth - 1));
    }
    return Object.freeze(list);
  }

  #dict(length: number, depth: number): Value {
    this.#fits(2 * length, depth);
    const dict: Record<string, Value> = {};
    this.#keys[depth] ??= [];
    const guesses = this.#keys[depth];
    for (let place = 0; place < length; place++) {
      const key = this.#key(guesses[place]);
      guesses[place] = key;
      const value = this.value(depth - 1);
      if (key === "__proto__") {
        Object.defineProperty(dict, key, { value, enumerable: true, configurable: true, writable: true });
      } else {
        dict[key] = value;
      }
    }
    return Object.freeze(dict);
  }

  /**
   * Read the name of a field, which mostly is that of the dict before in this place: text that is not made again
   * need not be looked up again as a name either, and that is most of what reading a row costs.
   */
  #key(guess: string | undefined): string {
    const start = this.#pos;
    if (guess === undefined || this.#data[start] !== (0xa0 | guess.length) || guess.length > 31) {
      return this.text();
    }
    for (let place = 0; place < guess.length; place++) {
      const byte = this.#data[start + 1 + place] ?? 0x80;
      if (byte >= 0x80 || byte !== guess.charCodeAt(place)) {
        return this.text();
      }
    }
    this.#pos = start + 1 + guess.length;
    return guess;
  }

  /** Refuse a list or dict of more elements than bytes follow, or one too deep. */
  #fits(elements: number, depth: number): void {
    if (elements > this.left) {
      throw new ProtocolError("the bytes end inside the value");
    }
    if (depth <= 0) {
      throw new ProtocolError("too many lists and dicts inside one another");
    }
  }

  #extension(byte: number): Value {
    const length = byte >= 0xd4 && byte <= 0xd8 ? 1 << (byte - 0xd4) : this.#sized(byte, 0xc7, 3);
    if (length === undefined) {
      throw new ProtocolError("expected a msgpack value, got the unused byte 0xc1");
    }
    const kind = this.#view.getInt8(this.#advanced(1));
    const at = this.#advanced(length);
    const view = this.#view;
    if (kind === 1 && length === 8) {
      return view.getBigInt64(at);
    }
    if (kind === -1 && length === 4) {
      return dateOf(view.getUint32(at), 0);
    }
    if (kind === -1 && length === 8) {
      const upper = view.getUint32(at);
      return dateOf((upper & 3) * 2 ** 32 + view.getUint32(at + 4), upper >>> 2);
    }
    if (kind === -1 && length === 12) {
      return dateOf(Number(view.getBigInt64(at + 4)), view.getUint32(at));
    }
    throw new ProtocolError(`value: expected extension 1 of 8 bytes, got ${kind} of ${length}`);
  }

  /** Step over one element, of a list or dict over its head alone; return how many follow inside. */
  #step(): number {
    const byte = this.#byte();
    if (byte >= 0x80 && byte < 0xa0) {
      return byte < 0x90 ? 2 * (byte & 15) : byte & 15;
    }
    if (byte === 0xdc || byte === 0xdd) {
      return this.#sized(byte, 0xdc, 2, 2) ?? 0;
    }
    if (byte === 0xde || byte === 0xdf) {
      return 2 * (this.#sized(byte, 0xde, 2, 2) ?? 0);
    }
    this.#pos--;
    if (byte >= 0xc7 && byte <= 0xc9) {
      this.#pos++;
      this.#taken(1 + (this.#sized(byte, 0xc7, 3) ?? 0));
    } else if (byte >= 0xd4 && byte <= 0xd8) {
      this.#taken(2 + (1 << (byte - 0xd4)));
    } else {
      this.value(1);
    }
    return 0;
  }
}

const INT_MAX = 2n ** 63n - 1n;

function safe(value: bigint): number | bigint {
  if (value > INT_MAX) {
    throw new ProtocolError("expected an integer below 2^63");
  }
  return value >= Number.MIN_SAFE_INTEGER && value <= Number.MAX_SAFE_INTEGER ? Number(value) : value;
}

function decoded(bytes: Uint8Array): string {
  try {
    return TEXT.decode(bytes);
  } catch {
    throw new ProtocolError("expected text, got bytes that are not valid UTF-8");
  }
}
