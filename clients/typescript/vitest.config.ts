import { join } from "node:path";
import { defineConfig } from "vitest/config";

const REACT_18 = join(import.meta.dirname, "test", "react18", "node_modules");
const TESTING_LIBRARY = join(import.meta.dirname, "node_modules", "@testing-library", "react", "dist");
const TESTS = "test/**/*.test.{ts,tsx}";
const HOOKS = "test/react/*.test.{ts,tsx}";

export default defineConfig({
  test: {
    testTimeout: 120_000, // the machine may do other things as well
    hookTimeout: 120_000,
    maxWorkers: 2,
    execArgv: ["--experimental-websocket"], // Node.js 20 has a WebSocket only when asked for it
    projects: [
      { extends: true, test: { name: "react 19", include: [TESTS], env: { REACT: "19" } } },
      {
        extends: true,
        resolve: {
          alias: [
            { find: /^react(?=\/|$)/, replacement: join(REACT_18, "react") },
            { find: /^react-dom(?=\/|$)/, replacement: join(REACT_18, "react-dom") },
            // Its modules, which name React so that the lines above apply.
            {
              find: /^@testing-library\/react$/,
              replacement: join(TESTING_LIBRARY, "@testing-library", "react.esm.js"),
            },
          ],
        },
        test: {
          name: "react 18",
          include: [HOOKS],
          env: { REACT: "18" },
          server: { deps: { inline: [/@testing-library\/react/] } },
        },
      },
    ],
  },
});
