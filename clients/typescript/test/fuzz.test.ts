/** Bytes that are nearly right never do anything but be read or be refused. */

import { expect, test } from "vitest";
import { applyDelta } from "../src/deltas.js";
import { ProtocolError } from "../src/errors.js";
import { decodeServerMessage } from "../src/messages.js";
import { decodeValue, encodeValue } from "../src/values.js";
import { fromHex, vectors } from "./support/vectors.js";

const TIMES = 200;

/** Chance that is the same each time. */
class Chance {
  #state = 20_261_128;

  below(limit: number): number {
    this.#state = (this.#state * 48_271) % 2_147_483_647;
    return this.#state % limit;
  }
}

/** Return bytes with some of them changed, left out, doubled or cut off. */
function spoilt(bytes: Uint8Array, chance: Chance): Uint8Array {
  const made = [...bytes];
  for (let times = 1 + chance.below(3); times > 0; times--) {
    const place = chance.below(made.length + 1);
    const change = [
      () => made.splice(place, 1, chance.below(256)),
      () => made.splice(place, 1),
      () => made.splice(place, 0, ...made.slice(place, place + chance.below(9))),
      () => made.splice(place),
    ][chance.below(4)];
    change?.();
  }
  return new Uint8Array(made);
}

function refusedOr(read: () => unknown): boolean {
  try {
    read();
    return false;
  } catch (error) {
    expect(error).toBeInstanceOf(ProtocolError);
    return true;
  }
}

test("messages", () => {
  const chance = new Chance();
  let refused = 0;
  for (const { hex } of vectors<object>("server_messages.json")) {
    for (let time = 0; time < TIMES; time++) {
      const bytes = spoilt(fromHex(hex), chance);
      refused += Number(refusedOr(() => decodeServerMessage(bytes)));
    }
  }
  expect(refused).toBeGreaterThan(TIMES);
});

test("values, and what was read can be written again", () => {
  const chance = new Chance();
  let read = 0;
  for (const { hex } of vectors<object>("values.json")) {
    for (let time = 0; time < TIMES; time++) {
      const bytes = spoilt(fromHex(hex), chance);
      refusedOr(() => {
        const value = decodeValue(bytes);
        expect(decodeValue(encodeValue(value))).toStrictEqual(value);
        read++;
      });
    }
  }
  expect(read).toBeGreaterThan(TIMES);
});

test("deltas", () => {
  const chance = new Chance();
  let made = 0;
  for (const { old, operations } of vectors<{ old: string; operations: string }>("deltas.json")) {
    const held = decodeValue(fromHex(old));
    for (let time = 0; time < TIMES; time++) {
      const bytes = spoilt(fromHex(operations), chance);
      made += Number(!refusedOr(() => applyDelta(held, bytes)));
    }
    expect(held).toStrictEqual(decodeValue(fromHex(old)));
  }
  expect(made).toBeGreaterThan(TIMES / 10);
});
