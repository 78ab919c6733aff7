import type { Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { CHROMIUM, Site } from "../support/browser.js";
import { Daemon } from "../support/daemon.js";

let daemon: Daemon;
let site: Site;

const shows = (page: Page, place: string, text: string | RegExp) =>
  page.locator(`#${place}`, { hasText: text }).waitFor();
const keysOf = async (page: Page) => (await page.locator("#rows").textContent())?.split(" ") ?? [];

describe.skipIf(CHROMIUM === undefined)("actions in Chromium", () => {
  beforeAll(async () => {
    daemon = await Daemon.start("web");
    site = await Site.open("clients/typescript/test/browser/actions");
  }, 120_000);
  afterAll(async () => {
    await site?.close();
    await daemon?.end();
  });

  test("an action's result is shown, and what it writes in every tab", async () => {
    const [one, other] = [await opened("filled"), await opened("filled")];
    await one.click("#fill");
    await shows(one, "said", /^3$/);
    await shows(one, "rows", /^a b c$/);
    await shows(other, "rows", /^a b c$/);
    await shows(one, "state", "0 under way");
  });

  test("pieces of a stream are shown as they come, in order, and what it fails with behind them", async () => {
    const page = await opened("streamed");
    await page.click("#few");
    await shows(page, "said", /^word 0, word 1, word 2, over$/);
    await shows(page, "rows", /^0 1 2$/);
    await page.click("#breaks");
    await shows(page, "said", /over, 0, 1, application_error$/);
    await shows(page, "state", "0 under way");
  });

  test("leaving a stream ends it on the server", async () => {
    const page = await opened("left");
    await page.click("#many");
    await shows(page, "said", "word 2");
    await page.click("#stop");
    await shows(page, "said", /stopped$/);
    await shows(page, "state", "0 under way"); // the server has answered
    expect((await keysOf(page)).length, "1,000 were asked for").toBeLessThan(500);
    await site.picture(page, "actions");
  });

  test("an action whose connection ends says so and is not run again; others are, once there is another", async () => {
    const page = await opened("cut");
    await page.click("#slow");
    await page.click("#many");
    await shows(page, "said", "word 1");
    await shows(page, "state", "2 under way");
    await daemon.do("kill");
    await shows(page, "said", /(connection_lost.*){2}/);
    await shows(page, "state", "0 under way");
    await daemon.do("start");
    await page.click("#fill");
    await shows(page, "said", /, \d+$/);
    expect(await keysOf(page)).toContain("c");
    expect(await page.locator("#said").textContent()).not.toContain("over");
  });

  test("no page has met an error", () => {
    expect(site.complaints).toEqual([]);
  });
});

async function opened(board: string): Promise<Page> {
  const page = await site.tab(daemon.addresses.daemon, `&board=${board}`);
  await shows(page, "state", "0 under way");
  return page;
}
