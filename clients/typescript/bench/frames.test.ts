/**
 * What 50 updates a second cost a page with 1,000 rows, and whose work that is. Writes `build/browser/frames.json`;
 * `benchmarks/web_frames.py` runs it.
 *
 * In turns: the page over a daemon, and the same list with as many changes of React's own state. Then the client
 * alone, without anything that renders.
 */

import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { ARTEFACTS, CHROMIUM, Site } from "../test/support/browser.js";
import { api } from "../test/support/bundle.js";
import { Daemon } from "../test/support/daemon.js";
import { type Spent, traced } from "../test/support/trace.js";

const ROWS = 1_000;
const UPDATES = 100;
const PAUSE_MS = 20;
const TURNS = Number(process.env.HEADWATER_TURNS ?? 4);

interface Turn extends Spent {
  /** Lengths of frames by the clock, in ms. */
  readonly frames: readonly number[];
}

test.runIf(CHROMIUM !== undefined)("frames", async () => {
  const daemon = await Daemon.start("web");
  const site = await Site.open("clients/typescript/test/browser/rows");
  for (let first = 0; first < ROWS; first += 250) {
    await daemon.do("call", "mutation", "rows:fill", { board: "many", first, number: 250 });
  }
  const turns: Record<"page" | "plain" | "local" | "bare", Turn[]> = {
    page: [],
    plain: [],
    local: [],
    bare: [],
  };
  for (let turn = 0; turn < TURNS; turn++) {
    for (const [kind, found] of Object.entries(turns)) {
      found.push(await measured(daemon, site, kind, turn));
    }
  }
  mkdirSync(ARTEFACTS, { recursive: true });
  writeFileSync(join(ARTEFACTS, "frames.json"), JSON.stringify({ rows: ROWS, updates: UPDATES, turns }));
  expect(site.complaints).toEqual([]);
  await site.close();
  await daemon.end();
});

async function measured(daemon: Daemon, site: Site, kind: string, turn: number): Promise<Turn> {
  const page = await site.tab(daemon.addresses.daemon, `&${kind}`);
  await page.locator(kind === "bare" ? "#bare" : `#k${ROWS - 1}`).waitFor();
  const writer = daemon.client();
  await writer.query(api.rows.count, { board: "many" });
  await page.evaluate(() => {
    window.seen = { frames: [], renders: 0 };
  });
  const spent = await traced(page, async () => {
    const began = performance.now();
    const sent: Promise<unknown>[] = [];
    for (let update = 0; update < UPDATES; update++) {
      const dueMs = began + update * PAUSE_MS - performance.now();
      await new Promise((resolve) => setTimeout(resolve, Math.max(0, dueMs)));
      if (kind !== "local") {
        const args = { board: "many", key: `k${(update * 37) % ROWS}`, text: `${kind} ${turn}.${update}` };
        sent.push(writer.mutation(api.rows.note, args));
      }
    }
    await Promise.all(sent);
    await page.evaluate(() => new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve))));
  });
  const { frames } = await page.evaluate(() => window.seen);
  await page.close();
  await writer.close();
  return { ...spent, frames };
}
