import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["test/**/*.test.{ts,tsx}"],
    testTimeout: 120_000, // the machine may do other things as well
    hookTimeout: 120_000,
    maxWorkers: 2,
    execArgv: ["--experimental-websocket"], // Node.js 20 has a WebSocket only when asked for it
  },
});
