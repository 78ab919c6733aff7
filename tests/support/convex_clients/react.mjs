// The page of `hooks.mjs` under jsdom, driven as `peer.mjs` is.
import { createInterface } from "node:readline";
import { JSDOM } from "jsdom";

const { window } = new JSDOM("<!doctype html><div id=root></div>", { url: "http://localhost/", pretendToBeVisual: true });
for (const name of ["window", "document", "navigator", "HTMLElement", "Node", "WebSocket", "requestAnimationFrame", "cancelAnimationFrame"])
  Object.defineProperty(globalThis, name, { value: name === "window" ? window : window[name], configurable: true });

const { commands, failure, tellTo } = await import("./hooks.mjs");
const told = (what) => process.stdout.write(`${JSON.stringify(what)}\n`);
tellTo(told);

for await (const line of createInterface({ input: process.stdin })) {
  const { id, op, ...fields } = JSON.parse(line);
  (async () => commands[op](fields))().then(
    (result) => told({ id, result: result ?? null }),
    (error) => told({ id, failure: failure(error) }),
  );
}
await commands.leave();
process.exit(0);
