import { describe, expect, test } from "vitest";
import type { Value } from "../src/index.js";
import { Moment } from "../src/index.js";
import { shared } from "../src/sharing.js";
import { decodeValue, encodeValue } from "../src/values.js";

function copied(value: Value): Value {
  return decodeValue(encodeValue(value));
}

const rows = copied([
  { _id: "a", n: 1, tags: ["x", "y"] },
  { _id: "b", n: 2, tags: [] },
  { _id: "c", n: 3, tags: [] },
]) as { _id: string; n: number; tags: string[] }[];

describe("an equal value is the old one, with every part", () => {
  test.each<[string, Value]>([
    ["rows", rows],
    ["numbers that are special", [Number.NaN, -0, 0, Number.POSITIVE_INFINITY]],
    ["bytes and moments", { bytes: new Uint8Array([1]), at: new Date(5), precise: new Moment(5, 3) }],
    ["bigints and text", [5n, "text", null, true]],
    ["a name that is special to the language", JSON.parse('{"__proto__": {"a": []}}')],
  ])("%s", (_, value) => {
    const old = copied(value);
    expect(shared(old, copied(value))).toBe(old);
  });
});

describe("a value that differs", () => {
  test.each<[string, Value, Value]>([
    ["0 and −0", 0, -0],
    ["an integer and a bigint", 5, 5n],
    ["moments a microsecond apart", new Moment(5, 3), new Moment(5, 4)],
    ["bytes", new Uint8Array([1]), new Uint8Array([2])],
    ["a list and a dict", [], {}],
    ["a field more", { a: 1 }, { a: 1, b: 2 }],
    ["another field", { a: 1 }, { b: 1 }],
    ["an element less", [1, 2], [1]],
    ["null and none", { a: null }, {}],
    ["a field that every object seems to have", {}, { toString: 1 }],
  ])("%s", (_, one, other) => {
    expect(shared(copied(one), other)).toStrictEqual(other);
    expect(shared(copied(other), one)).toStrictEqual(one);
  });

  test("keeps the parts that are equal, wherever rows with ids have moved", () => {
    const [a, b, c] = rows;
    const fresh = copied([
      { _id: "z", n: 0, tags: [] },
      ...rows.slice(1),
      { ...a, n: 9 } as Value,
    ]) as typeof rows;
    const made = shared(rows, fresh) as typeof rows;
    expect(made).toStrictEqual(fresh);
    expect([made[1], made[2]]).toStrictEqual([b, c]);
    expect(made[1]).toBe(b);
    expect(made[2]).toBe(c);
    expect(made[3]).not.toBe(a);
    expect(made[3]?.tags).toBe(a?.tags);
  });

  test("is frozen where it is new, and a copy: who made it can go on with it", () => {
    const mine = { list: [1], bytes: new Uint8Array([1]), left: undefined } as unknown as Record<
      string,
      Value
    >;
    const made = shared({ list: [] }, mine) as { list: number[]; bytes: Uint8Array };
    expect(made).toStrictEqual({ list: [1], bytes: new Uint8Array([1]) });
    expect(Object.isFrozen(made) && Object.isFrozen(made.list)).toBe(true);
    (mine.list as number[]).push(2);
    (mine.bytes as Uint8Array)[0] = 2;
    expect(made).toStrictEqual({ list: [1], bytes: new Uint8Array([1]) });
  });

  test.each([[new Map()], [Symbol()], ["\ud800"], [{ deep: [() => 0] }]])(
    "that is no value is refused: %s",
    (value) => {
      expect(() => shared(null, value as unknown as Value)).toThrow(
        expect.objectContaining({ code: "invalid_arguments" }),
      );
    },
  );
});
