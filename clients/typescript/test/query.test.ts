import { expect, test } from "vitest";
import { decodeServerMessage } from "../src/messages.js";
import { Query } from "../src/query.js";
import { encodeValue } from "../src/values.js";
import { frameOf } from "./support/frames.js";

test("what is kept of a result does not keep the frame that it came in", () => {
  const content = encodeValue("x".repeat(1_000_000));
  const body = [0, content, new Uint8Array(16), new Uint8Array(20)];
  const message = decodeServerMessage(frameOf([34, [0, 0, 0], [1, 0, 1], [[1, body]]]));
  const [change] = message.type === "Transition" ? message.changes : [];
  const query = new Query("a:b", encodeValue({}), false);
  expect(change?.query).toBe(1);
  if (change !== undefined) {
    query.apply(change.body, query.outcomeOf(1, change.body));
  }
  expect([query.digest?.buffer.byteLength, query.journal?.buffer.byteLength]).toStrictEqual([16, 20]);
});
