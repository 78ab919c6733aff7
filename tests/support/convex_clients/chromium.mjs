// The page of `hooks.mjs` in tabs of a real Chromium, driven as `peer.mjs` is; each command names its tab. Arguments: the
// program, and a file of the package that has playwright-core.
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { build } from "esbuild";

const [program, beside] = process.argv.slice(2);
const { chromium } = createRequire(beside)("playwright-core");
const FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"];

const told = (what) => process.stdout.write(`${JSON.stringify(what)}\n`);
const built = await build({
  stdin: { contents: 'import * as page from "./hooks.mjs"; page.tellTo(window.told); window.page = page;', resolveDir: import.meta.dirname },
  bundle: true,
  write: false,
  format: "iife",
  define: { "process.env.NODE_ENV": '"development"' },
});
const script = built.outputFiles[0].text;
const site = createServer((request, response) => {
  const isScript = request.url === "/page.js";
  response.setHeader("Content-Type", isScript ? "text/javascript; charset=utf-8" : "text/html; charset=utf-8");
  response.end(isScript ? script : "<!doctype html><title>tab</title><div id=root></div><script src=/page.js></script>");
}).listen(0, "127.0.0.1");
const browser = await chromium.launch({ executablePath: program, args: FLAGS });
const tabs = new Map();

async function opened(number) {
  const context = await browser.newContext(); // one for each tab: to be offline is a context's affair
  const page = await context.newPage();
  page.on("pageerror", (error) => tabs.get(number).complaints.push(String(error)));
  tabs.set(number, { context, page, complaints: [] });
  await page.exposeFunction("told", told);
  await page.goto(`http://127.0.0.1:${site.address().port}/`);
}

const own = {
  offline: ({ tab, offline }) => tabs.get(tab).context.setOffline(offline),
  complaints: ({ tab }) => tabs.get(tab).complaints,
};

async function done({ op, tab, ...fields }) {
  if (op in own) return { result: (await own[op]({ tab, ...fields })) ?? null };
  if (!tabs.has(tab)) await opened(tab);
  const asked = { op, fields: { first: tab * 1000, ...fields } };
  return tabs.get(tab).page.evaluate(async ({ op, fields }) => {
    try {
      return { result: (await window.page.commands[op](fields)) ?? null };
    } catch (error) {
      return { failure: window.page.failure(error) };
    }
  }, asked);
}

for await (const line of createInterface({ input: process.stdin })) {
  const { id, ...asked } = JSON.parse(line);
  done({ tab: 0, ...asked }).then(
    (answer) => told({ id, result: null, ...answer }),
    (error) => told({ id, failure: { name: error.name, message: error.message } }),
  );
}
await browser.close();
process.exit(0);
