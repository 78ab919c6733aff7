/**
 * The messages of the protocol and their bytes.
 *
 * Pure. A message is an array of its number and its fields; `[name, reader]` of each field stand in the order
 * of the wire, so that a refusal names the field. What follows the fields that we know is stepped over.
 */

import { ProtocolError } from "./errors.js";
import { LIST_ITEMS_MAX } from "./limits.js";
import { Reader } from "./reader.js";
import { Writer } from "./writer.js";

type Read<T> = (reader: Reader) => T;
type Shape = Record<string, Read<unknown>>;
type Fields<S extends Shape> = { readonly [Name in keyof S]: ReturnType<S[Name]> };

const uint: Read<number> = (reader) => reader.uint();
const text: Read<string> = (reader) => reader.text();
const bytes: Read<Uint8Array> = (reader) => reader.bytes();

function orNil<T>(read: Read<T>): Read<T | null> {
  return (reader) => (reader.nil() ? null : read(reader));
}

function listOf<T>(read: Read<T>): Read<readonly T[]> {
  return (reader) => {
    const count = reader.arrayHead();
    if (count > LIST_ITEMS_MAX) {
      throw new ProtocolError(`expected at most ${LIST_ITEMS_MAX} items, got ${count}`);
    }
    return Array.from({ length: count }, () => read(reader));
  };
}

/** Read the `count` elements that follow as fields; those from `required` on may be left out and are null then. */
function fieldsOf<S extends Shape>(
  name: string,
  shape: S,
  required: number,
  reader: Reader,
  count: number,
): Fields<S> {
  const readers = Object.entries(shape);
  if (count < required) {
    throw new ProtocolError(`${name}: expected ${required} fields, got ${count}`);
  }
  const values: Record<string, unknown> = {};
  for (const [place, [field, read]] of readers.entries()) {
    try {
      values[field] = place < count ? read(reader) : null;
    } catch (error) {
      throw error instanceof ProtocolError ? new ProtocolError(`${name}.${field}: ${error.message}`) : error;
    }
  }
  reader.skip(count - readers.length);
  return values as Fields<S>;
}

function struct<S extends Shape>(name: string, shape: S, required: number): Read<Fields<S>> {
  return (reader) => fieldsOf(name, shape, required, reader, reader.arrayHead());
}

/** Read an array that says by its first element which of several it is. */
function tagged<T>(what: string, kinds: Record<number, (reader: Reader, count: number) => T>): Read<T> {
  return (reader) => {
    const count = reader.arrayHead();
    const tag = count === 0 ? -1 : reader.uint();
    const read = kinds[tag];
    if (read === undefined) {
      throw new ProtocolError(`expected ${what}, got ${count === 0 ? "an empty array" : `number ${tag}`}`);
    }
    return read(reader, count - 1);
  };
}

function kind<Name extends string, S extends Shape>(type: Name, shape: S, optional = 0) {
  const required = Object.keys(shape).length - optional;
  return (reader: Reader, count: number): { readonly type: Name } & Fields<S> => ({
    type,
    ...fieldsOf(type, shape, required, reader, count),
  });
}

const version = struct("Version", { querySet: uint, identity: uint, ts: uint }, 3);
const errorBody = struct("Error", { code: text, message: text, data: orNil(bytes) }, 2);

const value = kind("Value", { content: bytes, digest: bytes, journal: orNil(bytes) }, 1);
const delta = kind("Delta", { operations: bytes, digest: bytes, journal: orNil(bytes) }, 1);
const unchanged = kind("Unchanged", { digest: bytes, journal: orNil(bytes) }, 1);
const failed = kind("Failed", { error: errorBody });
const removed = kind("Removed", {});

/** Where a session stands. */
export type Version = ReturnType<typeof version>;
/** An error as it crosses the wire. */
export type ErrorBody = ReturnType<typeof errorBody>;
/** What became of a query. */
export type ChangeBody = ReturnType<
  typeof value | typeof delta | typeof unchanged | typeof failed | typeof removed
>;

const changeBody = tagged<ChangeBody>("a change body", {
  0: value,
  1: delta,
  2: unchanged,
  3: failed,
  4: removed,
});
const change = struct("Change", { query: uint, body: changeBody }, 2);

const told = kind(
  "Welcome",
  {
    version: uint,
    incarnation: bytes,
    ts: uint,
    frameLimitBytes: uint,
    heartbeatMs: uint,
    streamWindow: orNil(uint),
  },
  1,
);
/** A server that says nothing of streams knows none. */
function welcome(reader: Reader, count: number) {
  const found = told(reader, count);
  return { ...found, streamWindow: found.streamWindow ?? 0 };
}
const transition = kind("Transition", { start: version, end: version, changes: listOf(change) });
const outcome = { value: orNil(bytes), error: orNil(errorBody) };
const mutationAnswer = kind("MutationAnswer", { request: uint, ts: uint, ...outcome });
const actionAnswer = kind("ActionAnswer", { request: uint, ...outcome });
const actionPiece = kind("ActionPiece", { request: uint, content: bytes });
const authError = kind("AuthError", { base: uint, message: text });
const fatalError = kind("FatalError", { error: errorBody });
const ping = kind("Ping", { nonce: uint });
const pong = kind("Pong", { nonce: uint });

export type Welcome = ReturnType<typeof welcome>;
export type Transition = ReturnType<typeof transition>;
export type MutationAnswer = ReturnType<typeof mutationAnswer>;
export type ActionAnswer = ReturnType<typeof actionAnswer>;
export type ActionPiece = ReturnType<typeof actionPiece>;
/** What a server sends. */
export type ServerMessage = ReturnType<
  | typeof welcome
  | typeof transition
  | typeof mutationAnswer
  | typeof actionAnswer
  | typeof actionPiece
  | typeof authError
  | typeof fatalError
  | typeof ping
  | typeof pong
>;

const serverMessage = tagged<ServerMessage>("the number of a server message", {
  33: welcome,
  34: transition,
  35: mutationAnswer,
  36: actionAnswer,
  37: authError,
  38: fatalError,
  39: actionPiece,
  6: ping,
  7: pong,
});

/** Return the message that a server sent. Throws `ProtocolError`, naming message, field and what was expected. */
export function decodeServerMessage(frame: Uint8Array): ServerMessage {
  const reader = new Reader(frame);
  const message = serverMessage(reader);
  if (reader.left > 0) {
    throw new ProtocolError(`${message.type}: ${reader.left} bytes follow the message`);
  }
  return message;
}

/** A query to subscribe to: its number, function, arguments, and journal and digest of what is held of it. */
export type AddQuery = readonly [
  query: number,
  name: string,
  args: Uint8Array,
  journal: Uint8Array | null,
  digest: Uint8Array | null,
];

/** What a client sends, as it stands on the wire. */
export type ClientMessage =
  | readonly [
      1,
      versions: readonly number[],
      session: Uint8Array,
      lastTs: number,
      incarnation: Uint8Array | null,
      client: string,
    ]
  | readonly [2, base: number, next: number, add: readonly AddQuery[], remove: readonly number[]]
  | readonly [3, request: number, name: string, args: Uint8Array, forgetBelow: number, sentTs: number]
  | readonly [4, request: number, name: string, args: Uint8Array, window?: number]
  | readonly [5, base: number, token: string | null]
  | readonly [6, nonce: number]
  | readonly [7, nonce: number]
  | readonly [8, request: number, size: number]
  | readonly [9, request: number];

/** Return the bytes of a message. */
export function encodeMessage(message: ClientMessage): Uint8Array {
  const writer = new Writer(false);
  writer.value(message, "message", 0);
  return writer.done();
}
