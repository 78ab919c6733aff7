import { join } from "node:path";
import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    root: join(import.meta.dirname, ".."),
    include: ["bench/frames.test.ts"],
    testTimeout: 600_000,
    hookTimeout: 600_000,
    execArgv: ["--experimental-websocket"],
  },
});
