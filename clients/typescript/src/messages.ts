/**
 * The messages of the protocol and their bytes.
 *
 * Pure. A message is an array of its number and its fields; `[name, reader]` of each field stand in the order
 * of the wire, so that a refusal names the field. What follows the fields that we know is stepped over.
 */

import { ProtocolError } from "./errors.js";
import { LIST_ITEMS_MAX } from "./limits.js";
import { Reader } from "./reader.js";
import { encodeValue } from "./values.js";

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
      throw new ProtocolError(`unexpected ${count} items`);
    }
    return Array.from({ length: count }, () => read(reader));
  };
}

/** Return an error that says where it was, too. */
function placed(error: unknown, place: string): unknown {
  return error instanceof ProtocolError ? new ProtocolError(`${place}: ${error.message}`) : error;
}

/** Read so many elements that follow as fields; the last `optional` ones may be left out and are null then. */
function fields<S extends Shape>(shape: S, optional = 0): (reader: Reader, count: number) => Fields<S> {
  const readers = Object.entries(shape);
  return (reader, count) => {
    if (count < readers.length - optional) {
      throw new ProtocolError(`expected ${readers.length} fields, got ${count}`);
    }
    const values: Record<string, unknown> = {};
    let left = count;
    for (const [name, read] of readers) {
      try {
        values[name] = left-- > 0 ? read(reader) : null;
      } catch (error) {
        throw placed(error, name);
      }
    }
    reader.skip(left);
    return values as Fields<S>;
  };
}

function struct<S extends Shape>(shape: S, optional = 0): Read<Fields<S>> {
  const read = fields(shape, optional);
  return (reader) => read(reader, reader.arrayHead());
}

/** Read an array that says by its first element which of several it is. */
function tagged<T>(kinds: Record<number, (reader: Reader, count: number) => T>): Read<T> {
  return (reader) => {
    const count = reader.arrayHead();
    const tag = count === 0 ? -1 : reader.uint();
    const read = kinds[tag];
    if (!read) {
      throw new ProtocolError(`unexpected kind ${tag}`);
    }
    return read(reader, count - 1);
  };
}

function kind<Name extends string, S extends Shape>(type: Name, shape: S, optional = 0) {
  const read = fields(shape, optional);
  return (reader: Reader, count: number): { readonly type: Name } & Fields<S> => {
    try {
      return { type, ...read(reader, count) };
    } catch (error) {
      throw placed(error, type);
    }
  };
}

const version = struct({ querySet: uint, identity: uint, ts: uint });
const errorBody = struct({ code: text, message: text, data: orNil(bytes) }, 1);

const held = { digest: bytes, journal: orNil(bytes) };
const value = kind("Value", { content: bytes, ...held }, 1);
const delta = kind("Delta", { operations: bytes, ...held }, 1);
const unchanged = kind("Unchanged", held, 1);
const failure = { error: errorBody };
const failed = kind("Failed", failure);
const removed = kind("Removed", {});

/** Where a session stands. */
export type Version = ReturnType<typeof version>;
/** An error as it crosses the wire. */
export type ErrorBody = ReturnType<typeof errorBody>;
/** What became of a query. */
export type ChangeBody = ReturnType<
  typeof value | typeof delta | typeof unchanged | typeof failed | typeof removed
>;

const changeBody = tagged<ChangeBody>({
  0: value,
  1: delta,
  2: unchanged,
  3: failed,
  4: removed,
});
const change = struct({ query: uint, body: changeBody });

const welcome = kind(
  "Welcome",
  {
    version: uint,
    incarnation: bytes,
    ts: uint,
    frameLimitBytes: uint,
    heartbeatMs: uint,
    window: orNil(uint),
  },
  1,
);
const transition = kind("Transition", { start: version, end: version, changes: listOf(change) });
const outcome = { value: orNil(bytes), error: orNil(errorBody) };
const mutationAnswer = kind("MutationAnswer", { request: uint, ts: uint, ...outcome });
const actionAnswer = kind("ActionAnswer", { request: uint, ...outcome });
const actionPiece = kind("ActionPiece", { request: uint, content: bytes });
const authError = kind("AuthError", { base: uint, message: text });
const fatalError = kind("FatalError", failure);
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

const serverMessage = tagged<ServerMessage>({
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
    throw new ProtocolError(`unexpected ${reader.left} bytes behind ${message.type}`);
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
  // Behind these fields a call may say in which span it is made, which this client does not.
  | readonly [3, request: number, name: string, args: Uint8Array, forgetBelow: number, sentTs: number]
  | readonly [4, request: number, name: string, args: Uint8Array, window?: number]
  | readonly [5, base: number, token: string | null]
  | readonly [6, nonce: number]
  | readonly [7, nonce: number]
  | readonly [8, request: number, size: number]
  | readonly [9, request: number];

/** Return the bytes of a message. */
export function encodeMessage(message: ClientMessage): Uint8Array {
  return encodeValue(message);
}
