/** Python programs of the repository, which some tests have beside them. */

import { type ChildProcess, spawn } from "node:child_process";
import { join } from "node:path";
import { createInterface } from "node:readline";

/** The repository. */
export const ROOT = join(import.meta.dirname, "..", "..", "..", "..");
export const PYTHON = join(ROOT, ".venv", "bin", "python");
export const TESTS = join(ROOT, "tests");

/** Start a module of `tests/`, whose lines are read. What it says about errors is shown. */
export function startPython(module: string, ...words: (string | number)[]): ChildProcess {
  return spawn(PYTHON, ["-m", module, ...words.map(String)], {
    cwd: TESTS,
    stdio: ["pipe", "pipe", "inherit"],
  });
}

/** Yield the lines that a module writes, each parsed. Throws if it fails. */
export async function* linesOf<T>(module: string, ...words: (string | number)[]): AsyncGenerator<T> {
  const child = startPython(module, ...words);
  const ended = new Promise<number | null>((resolve) => child.on("close", resolve));
  if (child.stdout === null) {
    throw new Error("a child without a standard output");
  }
  for await (const line of createInterface({ input: child.stdout })) {
    yield JSON.parse(line);
  }
  const code = await ended;
  if (code !== 0) {
    throw new Error(`${module} ended with code ${code}`);
  }
}
