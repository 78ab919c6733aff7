import type { Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { CHROMIUM, Site } from "../support/browser.js";
import { Daemon } from "../support/daemon.js";
import { STAFF, userToken } from "../support/users.js";

let daemon: Daemon;
let site: Site;

describe.skipIf(CHROMIUM === undefined)("signing in, in Chromium", () => {
  beforeAll(async () => {
    daemon = await Daemon.start("identity", "--token-leeway-s", "0");
    site = await Site.open("clients/typescript/test/browser/signIn");
  }, 120_000);
  afterAll(async () => {
    await site?.close();
    await daemon?.end();
  });

  test("in, as somebody else, over the end of a token, and out", async () => {
    const page = await site.tab(daemon.addresses.daemon);
    const asked: [string, boolean][] = [];
    await page.exposeFunction("tokenOf", (user: string, forceRefresh: boolean) => {
      asked.push([user, forceRefresh]);
      return userToken(user, user === "bob" && !forceRefresh ? 1.5 : 3600);
    });
    await shows(page, "signed out", "nobody");
    await page.click("#write");
    await page.locator("#answer", { hasText: "unauthenticated" }).waitFor();
    await page.click("#be-ada");
    await shows(page, "signed in", `${STAFF}|ada`);
    await page.click("#write");
    await page.locator("#answer", { hasText: `${STAFF}|ada: from a page` }).waitFor();
    await page.click("#be-bob");
    await shows(page, "signed in", `${STAFF}|bob`);
    await expect.poll(() => asked.at(-1), { timeout: 20_000 }).toStrictEqual(["bob", true]);
    await shows(page, "signed in", `${STAFF}|bob`);
    await site.picture(page, "signed-in");
    await page.click("#be-nobody");
    await shows(page, "signed out", "nobody");
    expect(asked).toStrictEqual([
      ["ada", false],
      ["bob", false],
      ["bob", true],
    ]);
    expect(site.complaints).toEqual([]);
    await page.close();
  }, 120_000);
});

async function shows(page: Page, state: string, who: string): Promise<void> {
  await page.locator("#state", { hasText: state }).waitFor();
  await page.locator("#who", { hasText: who }).waitFor();
}
