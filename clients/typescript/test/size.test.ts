import { join } from "node:path";
import { expect, test } from "vitest";
import { loadedBytes, MSGPACK } from "../bench/size.mjs";

const CORE = join(import.meta.dirname, "..", "src", "index.ts");

test("a page loads at most 12,000 bytes for the core, gzipped, without msgpack", async () => {
  expect((await loadedBytes(CORE, MSGPACK)).gzipped).toBeLessThanOrEqual(12_000);
});

test("… and at most 15,000 with it", async () => {
  expect((await loadedBytes(CORE)).gzipped).toBeLessThanOrEqual(15_000);
});
