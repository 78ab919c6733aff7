/** Bytes of msgpack in its shortest form, written from front to back. Pure. */

import { isDict } from "./containers.js";
import { HeadwaterError } from "./errors.js";
import { VALUE_DEPTH_MAX } from "./limits.js";
import { isDateMs, secondsOf } from "./moment.js";

const TEXT = new TextEncoder();
const INT64_EXTENSION = 1;
const INT_MIN = -(2n ** 63n);
const INT_MAX = 2n ** 63n - 1n;

/**
 * Return the bytes of a value. Fields that are `undefined` are left out.
 *
 * Throws `invalid_arguments`, naming the place, if it is none.
 */
export function encodeValue(value: unknown, ordered = false): Uint8Array {
  const writer = new Writer(ordered);
  writer.value(value, "$", 0);
  return writer.done();
}

/** Return bytes that are equal if the values are: of dicts with their fields in order. */
export function canonicalBytes(value: unknown): Uint8Array {
  return encodeValue(value, true);
}

class Writer {
  #buffer = new Uint8Array(128);
  #view = new DataView(this.#buffer.buffer);
  #length = 0;
  readonly #ordered: boolean;

  /** `ordered`: write the fields of dicts in the order of their names, so that equal dicts have equal bytes. */
  constructor(ordered: boolean) {
    this.#ordered = ordered;
  }

  /** Return what was written. */
  done(): Uint8Array {
    return this.#buffer.slice(0, this.#length);
  }

  /** Write a value; `path` names its place in the error if it is none. */
  value(value: unknown, path: string, depth: number): void {
    switch (typeof value) {
      case "boolean":
        return this.#byte(value ? 0xc3 : 0xc2);
      case "number":
        return this.#number(value);
      case "bigint":
        return this.#bigint(value, path);
      case "string":
        return this.#text(value, path);
      case "object":
        return value === null ? this.#byte(0xc0) : this.#object(value, path, depth);
      default:
        throw refused(path, "a value", typeof value);
    }
  }

  #object(value: object, path: string, depth: number): void {
    if (value instanceof Uint8Array) {
      this.#head(value.length, 0xc4);
      return this.#raw(value);
    }
    if (value instanceof Date) {
      return this.#date(value, path);
    }
    if (depth === VALUE_DEPTH_MAX) {
      throw refused(
        path.slice(0, 80),
        `at most ${VALUE_DEPTH_MAX} lists and dicts inside one another`,
        "more",
      );
    }
    if (Array.isArray(value)) {
      this.#containerHead(value.length, 0x90, 0xdc);
      // A hole of an array is `undefined` here, and refused as that.
      for (let place = 0; place < value.length; place++) {
        this.value(value[place], `${path}[${place}]`, depth + 1);
      }
      return;
    }
    this.#dict(value, path, depth + 1);
  }

  #dict(value: object, path: string, depth: number): void {
    if (!isDict(value)) {
      throw refused(path, "a value", value.constructor?.name ?? "an object of a class");
    }
    const fields = Object.entries(value).filter(([, field]) => field !== undefined);
    if (this.#ordered) {
      fields.sort(([one], [other]) => compared(one, other));
    }
    this.#containerHead(fields.length, 0x80, 0xde);
    for (const [name, field] of fields) {
      this.#text(name, path);
      this.value(field, `${path}.${name}`, depth);
    }
  }

  #number(value: number): void {
    if (!Number.isSafeInteger(value) || Object.is(value, -0)) {
      this.#byte(0xcb);
      const at = this.#room(8);
      return this.#view.setFloat64(at, value);
    }
    this.#integer(value);
  }

  #bigint(value: bigint, path: string): void {
    if (value < INT_MIN || value > INT_MAX) {
      throw refused(path, "an integer from -2^63 to 2^63-1", "a larger one");
    }
    const small = Number(value);
    if (!Number.isSafeInteger(small)) {
      return this.#integer(small, value);
    }
    // Only an `Int64` arrives as a bigint that a number could hold, so it goes back as one.
    this.#byte(0xd7);
    this.#byte(INT64_EXTENSION);
    const at = this.#room(8);
    this.#view.setBigInt64(at, value);
  }

  /** Write an integer; `exact` is the same where a number does not hold it to the last digit. */
  #integer(value: number, exact?: bigint): void {
    if (value >= 0) {
      if (value < 0x80) {
        this.#byte(value);
      } else if (value < 2 ** 32) {
        this.#head(value, 0xcc);
      } else {
        this.#byte(0xcf);
        const at = this.#room(8);
        this.#view.setBigUint64(at, exact ?? BigInt(value));
      }
    } else if (value >= -32) {
      this.#byte(value & 0xff);
    } else if (value >= -0x80) {
      this.#byte(0xd0);
      const at = this.#room(1);
      this.#view.setInt8(at, value);
    } else if (value >= -0x8000) {
      this.#byte(0xd1);
      const at = this.#room(2);
      this.#view.setInt16(at, value);
    } else if (value >= -(2 ** 31)) {
      this.#byte(0xd2);
      const at = this.#room(4);
      this.#view.setInt32(at, value);
    } else {
      this.#byte(0xd3);
      const at = this.#room(8);
      this.#view.setBigInt64(at, exact ?? BigInt(value));
    }
  }

  #text(value: string, path: string): void {
    if (/\p{Surrogate}/u.test(value)) {
      throw refused(path, "valid Unicode text", "an unpaired surrogate");
    }
    const bytes = TEXT.encode(value);
    if (bytes.length < 32) {
      this.#byte(0xa0 | bytes.length);
    } else {
      this.#head(bytes.length, 0xd9);
    }
    this.#raw(bytes);
  }

  #date(value: Date, path: string): void {
    const ms = value.getTime();
    if (!isDateMs(ms)) {
      throw refused(path, "a date of the years 1 to 9999", String(ms));
    }
    const [seconds, nanoseconds] = secondsOf(value);
    if (seconds >= 0 && seconds < 2 ** 32 && nanoseconds === 0) {
      this.#byte(0xd6);
      this.#byte(0xff);
      const at = this.#room(4);
      this.#view.setUint32(at, seconds);
    } else if (seconds >= 0 && seconds < 2 ** 34) {
      this.#byte(0xd7);
      this.#byte(0xff);
      const at = this.#room(8);
      this.#view.setBigUint64(at, (BigInt(nanoseconds) << 34n) | BigInt(seconds));
    } else {
      this.#head(12, 0xc7);
      this.#byte(0xff);
      const at = this.#room(12);
      this.#view.setUint32(at, nanoseconds);
      this.#view.setBigInt64(at + 4, BigInt(seconds));
    }
  }

  /** Write a number in one, two or four bytes behind `kind` or one of the two bytes that follow it. */
  #head(length: number, kind: number): void {
    if (length < 0x100) {
      this.#byte(kind);
      this.#byte(length);
    } else {
      this.#wideHead(length, kind + 1);
    }
  }

  #containerHead(length: number, short: number, kind: number): void {
    if (length < 16) {
      this.#byte(short | length);
    } else {
      this.#wideHead(length, kind);
    }
  }

  #wideHead(length: number, kind: number): void {
    if (length < 0x10000) {
      this.#byte(kind);
      const at = this.#room(2);
      this.#view.setUint16(at, length);
    } else {
      this.#byte(kind + 1);
      const at = this.#room(4);
      this.#view.setUint32(at, length);
    }
  }

  #byte(value: number): void {
    const at = this.#room(1);
    this.#view.setUint8(at, value);
  }

  #raw(bytes: Uint8Array): void {
    const at = this.#room(bytes.length);
    this.#buffer.set(bytes, at);
  }

  /** Make room for so many bytes and return where it begins. */
  #room(count: number): number {
    const start = this.#length;
    this.#length = start + count;
    if (this.#length > this.#buffer.length) {
      const larger = new Uint8Array(Math.max(this.#length, 2 * this.#buffer.length));
      larger.set(this.#buffer);
      this.#buffer = larger;
      this.#view = new DataView(larger.buffer);
    }
    return start;
  }
}

/** Order names by their code points, as UTF-8 orders their bytes; UTF-16, which `<` compares, does not. */
function compared(one: string, other: string): number {
  const [left, right] = [[...one], [...other]];
  for (let place = 0; place < Math.min(left.length, right.length); place++) {
    const difference = (left[place]?.codePointAt(0) ?? 0) - (right[place]?.codePointAt(0) ?? 0);
    if (difference !== 0) {
      return difference;
    }
  }
  return left.length - right.length;
}

function refused(path: string, expected: string, got: string): HeadwaterError {
  return new HeadwaterError("invalid_arguments", `expected ${expected}, got ${got} - at \`${path}\``);
}
