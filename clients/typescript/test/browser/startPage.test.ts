/** The page that a daemon shows at `/`, in a real Chromium. */

import { type Browser, chromium, type Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { CHROMIUM, FLAGS } from "../support/browser.js";
import { Daemon } from "../support/daemon.js";

let daemon: Daemon;
let browser: Browser;
let key: string;

async function opened(): Promise<Page> {
  const page = await browser.newPage();
  page.setDefaultTimeout(45_000);
  await page.goto(daemon.addresses.daemon.replace("ws:", "http:"));
  return page;
}

async function lookedInside(): Promise<Page> {
  const page = await opened();
  await page.getByLabel("Key of the deployment").fill(key);
  await page.getByRole("button", { name: "Look inside" }).click();
  await page.getByRole("heading", { name: "Functions" }).waitFor();
  return page;
}

describe.skipIf(CHROMIUM === undefined)("the start page in Chromium", () => {
  beforeAll(async () => {
    daemon = await Daemon.start("probe");
    key = String(await daemon.do("key"));
    browser = await chromium.launch({ executablePath: CHROMIUM ?? "", headless: true, args: FLAGS });
  }, 120_000);
  afterAll(async () => {
    await browser?.close();
    await daemon?.end();
  });

  test("says who it is to everybody, and the rest to those with a key alone", async () => {
    const page = await opened();
    await page.locator("output", { hasText: "ready" }).waitFor();
    expect(await page.locator("#version").textContent()).toMatch(/^\d+\.\d+/);
    expect(await page.getByRole("heading", { name: "Functions" }).isVisible()).toBe(false);
    await page.getByLabel("Key of the deployment").fill("hw-wrong");
    await page.getByRole("button", { name: "Look inside" }).click();
    await page.getByRole("alert").filter({ hasText: "none of this deployment" }).waitFor();
    expect(await page.getByRole("heading", { name: "Functions" }).isVisible()).toBe(false);
    await page.close();
  });

  test("shows functions, tables, their documents as text, and what is called", async () => {
    const page = await lookedInside();
    await page.locator("#functions tr", { hasText: "probe:keep_value" }).waitFor();
    const evil = "<img src=x onerror=\"document.title='gone'\">";
    await daemon.do("call", "mutation", "probe:keep_value", { key: evil, value: 1 });
    await page.locator("#log li", { hasText: "mutation probe:keep_value success" }).first().waitFor();
    await page.getByRole("button", { name: "pairs" }).click();
    await page.locator("#documents td", { hasText: evil }).waitFor();
    expect(await page.title()).toBe("Headwater");
    expect(await page.locator("#documents img").count()).toBe(0);
    await page.close();
  });

  test("goes on with the log after a restart, and forgets the key when told to", async () => {
    const page = await lookedInside();
    await daemon.do("kill");
    await page.locator("output", { hasText: "trying again" }).waitFor();
    await daemon.do("start");
    await page.locator("output", { hasText: "ready" }).waitFor();
    await daemon.do("call", "mutation", "probe:keep_value", { key: "later", value: 2 });
    await page.locator("#log li", { hasText: "probe:keep_value" }).first().waitFor();
    await page.reload();
    await page.getByRole("heading", { name: "Functions" }).waitFor();
    await page.getByRole("button", { name: "Forget the key" }).click();
    await page.reload();
    await page.locator("output", { hasText: "ready" }).waitFor();
    expect(await page.getByRole("heading", { name: "Functions" }).isVisible()).toBe(false);
    await page.close();
  });
});
