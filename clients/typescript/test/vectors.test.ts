import { describe, expect, test } from "vitest";
import type { Value } from "../src/api.js";
import { applyDelta } from "../src/deltas.js";
import { ProtocolError } from "../src/errors.js";
import { type ClientMessage, decodeServerMessage, encodeMessage } from "../src/messages.js";
import { decodeValue, encodeValue } from "../src/values.js";
import { described, fromHex, toHex, vectors } from "./support/vectors.js";

/** What goes back otherwise: a number does not say that it was a float, nor a large bigint that it was marked. */
const BACK: Record<string, string> = { "one as a float": "01", "marked negative": "d38000000000000000" };

describe("values", () => {
  test.each(vectors<{ value: unknown }>("values.json"))("$name", ({ name, hex, value }) => {
    const decoded = decodeValue(fromHex(hex));
    expect(decoded).toStrictEqual(described(value));
    expect(toHex(encodeValue(decoded))).toBe(BACK[name] ?? hex);
  });
});

interface Delta {
  readonly old: string;
  readonly operations: string;
  readonly new: string;
}

describe("deltas", () => {
  test.each(vectors<Delta>("deltas.json"))("$name", (vector) => {
    const made = applyDelta(decodeValue(fromHex(vector.old)), fromHex(vector.operations));
    expect(made).toStrictEqual(decodeValue(fromHex(vector.new)));
  });
});

type Described = { readonly [field: string]: unknown };

/** Return a described message with its bytes as bytes and its names as this client has them. */
function named(value: unknown): unknown {
  if (Array.isArray(value)) {
    return value.map(named);
  }
  if (typeof value !== "object" || value === null) {
    return value;
  }
  const fields = Object.entries(value).filter(
    ([name]) => name !== "type" || !PARTS.has(String(Object(value).type)),
  );
  if (fields.length === 1 && fields[0]?.[0] === "hex") {
    return fromHex(String(fields[0][1]));
  }
  return Object.fromEntries(
    fields.map(([name, field]) => [
      camel(name),
      name === "start" || name === "end" ? version(field) : named(field),
    ]),
  );
}

const PARTS = new Set(["Change", "ErrorBody", "AddQuery"]);

function camel(name: string): string {
  return name.replace(/_(\w)/g, (_, letter: string) => letter.toUpperCase());
}

function version(field: unknown): object {
  const [querySet, identity, ts] = field as number[];
  return { querySet, identity, ts };
}

describe("messages of a server", () => {
  test.each(vectors<{ message: Described }>("server_messages.json"))("$name", ({ hex, message }) => {
    const { stream_window: window, ...rest } = message;
    const streams = window === undefined ? {} : { window: window || null }; // a server may say nothing of streams
    expect(decodeServerMessage(fromHex(hex))).toStrictEqual({ ...Object(named(rest)), ...streams });
  });
});

const NUMBERS: Record<string, number> = {
  Connect: 1,
  ModifyQuerySet: 2,
  Mutation: 3,
  Action: 4,
  Authenticate: 5,
  Ping: 6,
  Pong: 7,
  ActionCredit: 8,
  CancelAction: 9,
};

/** Return a described message as it stands on the wire: its number, then its fields in their order. */
function onTheWire(message: Described): ClientMessage {
  const { type, traceparent, ...given } = message;
  const { window, ...rest } = given;
  const span = traceparent ? { traceparent } : {};
  const fields = window === 0 && !traceparent ? rest : { ...given, ...span }; // is left out
  return [NUMBERS[String(type)], ...Object.values(fields).map(field)] as unknown as ClientMessage;
}

function field(value: unknown): unknown {
  if (Array.isArray(value)) {
    return value.map(field);
  }
  const found = named(value);
  return typeof found === "object" && found !== null && !(found instanceof Uint8Array)
    ? Object.values(found)
    : found;
}

describe("messages of a client", () => {
  test.each(vectors<{ message: Described }>("client_messages.json"))("$name", ({ hex, message }) => {
    expect(toHex(encodeMessage(onTheWire(message)))).toBe(hex);
  });
});

const TAKEN: Record<string, (data: Uint8Array) => unknown> = {
  server: decodeServerMessage,
  value: (data) => decodeValue(data),
  delta: (data) => applyDelta(decodeValue(fromHex(vectors<Delta>("deltas.json")[0]?.old ?? "")), data),
};

describe("bad input", () => {
  const bad = vectors<{ kind: string; code: string }>("bad.json");
  test.each(bad.filter(({ kind }) => kind in TAKEN))("$kind: $name", ({ kind, hex, code }) => {
    expect(() => TAKEN[kind]?.(fromHex(hex))).toThrow(
      expect.objectContaining({ code, name: "ProtocolError" }),
    );
  });

  test("what a client need not take is what servers take, and frames of TCP", () => {
    expect(new Set(bad.map(({ kind }) => kind))).toStrictEqual(
      new Set(["client", "frame", ...Object.keys(TAKEN)]),
    );
  });

  test("a message that is cut anywhere is refused", () => {
    for (const { hex } of vectors<object>("server_messages.json")) {
      const whole = fromHex(hex);
      for (let end = 0; end < whole.length; end++) {
        expect(() => decodeServerMessage(whole.subarray(0, end))).toThrow(ProtocolError);
      }
    }
  });

  test("lengths that lie cost nothing", () => {
    for (const hex of ["ddffffffff", "dfffffffff", "dbffffffff", "c6ffffffff", "c9ffffffff01"]) {
      expect(() => decodeValue(fromHex(hex))).toThrow(ProtocolError);
    }
  });
});

describe("values of this language", () => {
  const depth = (count: number): Value => (count === 0 ? [] : [depth(count - 1)]);

  test.each<[string, unknown]>([
    ["undefined in a list", [undefined]],
    ["a map", new Map()],
    ["a function", () => 0],
    ["an unpaired surrogate", "\ud800"],
    ["one as a name", { "\udc00": 1 }],
    ["an integer of 65 bits", 2n ** 63n],
    ["an invalid date", new Date(Number.NaN)],
    ["too many lists", depth(64)],
  ])("%s is refused", (_, value) => {
    expect(() => encodeValue(value)).toThrow(expect.objectContaining({ code: "invalid_arguments" }));
  });

  test("the error names the place", () => {
    expect(() => encodeValue({ rows: [1, { a: Symbol() }] })).toThrow("at `$.rows[1].a`");
  });

  test.each<[string, unknown, unknown]>([
    ["fields that are undefined are left out", { a: undefined, b: 1 }, { b: 1 }],
    ["as many lists as may be", depth(63), depth(63)],
    [
      "a name that is special to the language",
      JSON.parse('{"__proto__": 1}'),
      JSON.parse('{"__proto__": 1}'),
    ],
    ["text beyond what fits at first", "é".repeat(70_000), "é".repeat(70_000)],
    ["many elements", Array(70_000).fill(7), Array(70_000).fill(7)],
    ["bytes", new Uint8Array(300), new Uint8Array(300)],
    ["a float", -1.5, -1.5],
    ["the largest number", Number.MAX_SAFE_INTEGER, Number.MAX_SAFE_INTEGER],
    ["the smallest number", Number.MIN_SAFE_INTEGER, Number.MIN_SAFE_INTEGER],
    ["a number that is no integer any more", 1e300, 1e300],
    ["an Int64", 5n, 5n],
    ["a large integer", -(2n ** 60n), -(2n ** 60n)],
  ])("%s", (_, value, back) => {
    expect(decodeValue(encodeValue(value))).toStrictEqual(back);
  });

  test("values are frozen, whatever is inside them", () => {
    const value = decodeValue(encodeValue([{ a: [1] }])) as { a: number[] }[];
    expect(() => value.push({ a: [] })).toThrow(TypeError);
    expect(() => value[0]?.a.push(2)).toThrow(TypeError);
  });
});
