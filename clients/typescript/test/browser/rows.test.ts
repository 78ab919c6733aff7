import type { Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { CHROMIUM, Site } from "../support/browser.js";
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
    const seen = await changed(page, UPDATES, "update");
    expect(seen.renders, "of each update its row, unless a later one overtook it").toBeLessThanOrEqual(
      UPDATES,
    );
    const texts = await page.locator("li").allTextContents();
    for (let update = 0; update < UPDATES; update++) {
      const place = placeOf(update);
      expect(texts[place]).toBe(`${place} k${place} update ${update}`);
    }
    await site.picture(page, "rows");
    expect(site.complaints).toEqual([]);
    await page.close();
  });

  test("rows that are other objects each time render all of them, which is seen", async () => {
    const page = await site.tab(daemon.addresses.daemon, "&copied");
    const seen = await changed(page, 5, "again");
    expect(seen.renders).toBeGreaterThanOrEqual(ROWS);
    await page.close();
  });
});

const placeOf = (update: number) => (update * 37) % ROWS;

/** Change so many rows of a tab at their pace; return what it has seen of that. */
async function changed(page: Page, updates: number, word: string) {
  await page.locator(`#k${ROWS - 1}`).waitFor();
  expect(await page.locator("li").count()).toBe(ROWS);
  const writer = daemon.client();
  await writer.query(api.rows.count, { board: "many" });
  await page.evaluate(() => {
    window.seen = { frames: [], renders: 0 };
  });
  const began = performance.now();
  const sent: Promise<unknown>[] = [];
  for (let update = 0; update < updates; update++) {
    const dueMs = began + update * PAUSE_MS - performance.now();
    await new Promise((resolve) => setTimeout(resolve, Math.max(0, dueMs)));
    const args = { board: "many", key: `k${placeOf(update)}`, text: `${word} ${update}` };
    sent.push(writer.mutation(api.rows.note, args));
  }
  await Promise.all(sent);
  const last = page.locator(`#k${placeOf(updates - 1)}`);
  await last.getByText(`${word} ${updates - 1}`).waitFor();
  return page.evaluate(() => window.seen);
}
