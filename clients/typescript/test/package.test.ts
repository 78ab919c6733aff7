import { readFile } from "node:fs/promises";
import { expect, test } from "vitest";
import { VERSION } from "../src/index.js";

test("the package, its exports and the server have one version", async () => {
  const described = JSON.parse(await readFile(new URL("../package.json", import.meta.url), "utf8"));
  const project = await readFile(new URL("../../../pyproject.toml", import.meta.url), "utf8");
  expect(described.version).toBe(VERSION);
  expect(project).toContain(`\nversion = "${VERSION}"\n`);
});
