import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { ApplicationError, errorFor, HeadwaterError } from "../src/errors.js";

const SPEC = readFileSync(new URL("../../../protocol/SPEC.md", import.meta.url), "utf8");
const TABLE = [...SPEC.matchAll(/^\| `(\w+)` \| [^|]* \| (never|same_request|after_reconnect) \|/gm)];

describe("every error of the protocol says what a caller may do", () => {
  test.each(TABLE.map(([, code, retry]) => [code, retry]))("%s: %s", (code, retry) => {
    expect(errorFor(code ?? "", "").retry).toBe(retry);
  });

  test("the table was found", () => {
    expect(TABLE.length).toBeGreaterThan(30);
  });
});

test("an error of a function carries its data, and text is its message too", () => {
  const error = errorFor("application_error", "", "no such channel");
  expect(error).toBeInstanceOf(ApplicationError);
  expect([error.data, error.message, error.name]).toStrictEqual([
    "no such channel",
    "no such channel",
    "ApplicationError",
  ]);
  expect(errorFor("new_code", "what happened")).toBeInstanceOf(HeadwaterError);
});
