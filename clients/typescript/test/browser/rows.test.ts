import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { ARTEFACTS, CHROMIUM, Site } from "../support/browser.js";
import { api } from "../support/bundle.js";
import { Daemon } from "../support/daemon.js";

const ROWS = 1_000;
const UPDATES = 250;
const PAUSE_MS = 20; // 50 updates a second

let daemon: Daemon;
let site: Site;

describe.skipIf(CHROMIUM === undefined)("many rows in Chromium", () => {
  beforeAll(async () => {
    daemon = await Daemon.start("web");
    site = await Site.open("clients/typescript/test/browser/rows");
    for (let first = 0; first < ROWS; first += 250) {
      await daemon.do("call", "mutation", "rows:fill", { board: "many", first, number: 250 });
    }
  }, 120_000);
  afterAll(async () => {
    await site?.close();
    await daemon?.end();
  });

  test("1,000 rows with 50 updates a second render what changed and nothing else", async () => {
    const page = await site.tab(daemon.addresses.daemon);
    await page.locator(`#k${ROWS - 1}`).waitFor();
    expect(await page.locator("li").count()).toBe(ROWS);
    const writer = daemon.client();
    await writer.query(api.rows.count, { board: "many" });
    await page.evaluate(() => {
      window.frameLengthsMs = [];
      window.renders = 0;
    });
    const began = performance.now();
    const sent: Promise<unknown>[] = [];
    for (let update = 0; update < UPDATES; update++) {
      const dueMs = began + update * PAUSE_MS - performance.now();
      await new Promise((resolve) => setTimeout(resolve, Math.max(0, dueMs)));
      const key = `k${(update * 37) % ROWS}`;
      sent.push(writer.mutation(api.rows.note, { board: "many", key, text: `update ${update}` }));
    }
    await Promise.all(sent);
    await page
      .getByText(`update ${UPDATES - 1}`, { exact: false })
      .last()
      .waitFor();
    const seconds = (performance.now() - began) / 1000;
    const { frames, renders } = await page.evaluate(() => ({
      frames: window.frameLengthsMs,
      renders: window.renders,
    }));
    expect(renders, "each update renders its row, unless a later one overtook it").toBeLessThanOrEqual(
      UPDATES,
    );
    const texts = await page.locator("li").allTextContents();
    for (let update = 0; update < UPDATES; update++) {
      const place = (update * 37) % ROWS;
      expect(texts[place]).toBe(`${place} k${place} update ${update}`);
    }
    const sorted = [...frames].sort((one, other) => one - other);
    const figures = {
      rows: ROWS,
      updates: UPDATES,
      seconds,
      frames: frames.length,
      longestMs: sorted.at(-1),
      p99Ms: sorted[Math.floor(sorted.length * 0.99)],
      medianMs: sorted[Math.floor(sorted.length / 2)],
    };
    await site.picture(page, "rows");
    writeFileSync(join(ARTEFACTS, "frames.json"), `${JSON.stringify(figures, null, 2)}\n`);
    expect(site.complaints).toEqual([]);
  });
});
