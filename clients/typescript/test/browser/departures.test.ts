import { join } from "node:path";
import type { Locator, Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { CHROMIUM, Site } from "../support/browser.js";
import { Daemon } from "../support/daemon.js";
import { ROOT } from "../support/python.js";

let daemon: Daemon;
let site: Site;

/** A flight that left at a minute of one day, or was cancelled. */
function flight(number: number, delay: number | null, origin = "JFK") {
  const scheduled = `2013-07-01T12:${String(number % 60).padStart(2, "0")}:00Z`;
  const base = { origin, carrier: "ZZ", number, destination: "LAX", tail_number: null };
  return { ...base, moment: scheduled, scheduled, delay_min: delay };
}

const record = (...rows: object[]) => daemon.do("call", "mutation", "flights:record", { rows });
const line = (page: Page, number: number): Locator => page.locator(`tr[data-flight="ZZ${number}"]`);
const gate = (page: Page, number: number): Locator => line(page, number).getByRole("button");
const live = (page: Page) => page.locator('output[data-phase="open"]').waitFor();

/** Press a button and return what it says once React has rendered what was there before any answer. */
async function pressed(button: Locator): Promise<string | null> {
  return button.evaluate(async (element: HTMLElement) => {
    element.click();
    await Promise.resolve();
    return element.getAttribute("aria-pressed");
  });
}

describe.skipIf(CHROMIUM === undefined)("the departures in Chromium", () => {
  beforeAll(async () => {
    daemon = await Daemon.start(join(ROOT, "examples", "departures", "functions"));
    site = await Site.open("examples/departures/web");
    await daemon.do("call", "mutation", "reference:add_airports", {
      rows: [
        {
          faa: "LAX",
          name: "Los Angeles Intl",
          latitude: 34,
          longitude: -118,
          altitude_ft: 126,
          time_zone: null,
        },
        {
          faa: "LOZ",
          name: "London-Corbin",
          latitude: 37,
          longitude: -84,
          altitude_ft: 1212,
          time_zone: null,
        },
      ],
    });
  }, 120_000);
  afterAll(async () => {
    await site?.close();
    await daemon?.end();
  });

  test("two tabs stay in step", async () => {
    await record(flight(1, 5), flight(2, -3));
    const [one, other] = [await site.tab(daemon.addresses.daemon), await site.tab(daemon.addresses.daemon)];
    for (const page of [one, other]) {
      await line(page, 2).waitFor();
      expect(await line(page, 1).textContent()).toContain("5 min late");
    }
    await record(flight(3, 0));
    for (const page of [one, other]) {
      await line(page, 3).waitFor();
      expect(await page.locator("tbody tr").first().getAttribute("data-flight")).toBe("ZZ3");
    }
    expect(await pressed(gate(one, 1)), "shown before the server answers").toBe("true");
    await other.locator('tr[data-flight="ZZ1"].boarding').waitFor();
    await gate(other, 1).click();
    await one.locator('tr[data-flight="ZZ1"]:not(.boarding)').waitFor();
    await site.picture(one, "departures");
    await one.close();
    await other.close();
  });

  test("what the server refuses is taken back and told", async () => {
    await record(flight(10, null));
    const page = await site.tab(daemon.addresses.daemon);
    await gate(page, 10).waitFor();
    expect(await pressed(gate(page, 10))).toBe("true");
    await page.getByRole("alert").waitFor();
    expect(await gate(page, 10).getAttribute("aria-pressed")).toBe("false");
    expect(await page.getByRole("alert").textContent()).toContain("ZZ10");
    await site.picture(page, "refused");
    await page.close();
  });

  test("what is done offline is shown at once and saved when the server is back", async () => {
    await record(flight(20, 1), flight(21, 2));
    const [one, other] = [await site.tab(daemon.addresses.daemon), await site.tab(daemon.addresses.daemon)];
    await Promise.all([gate(one, 20).waitFor(), gate(other, 20).waitFor()]);
    await daemon.do("kill");
    await one.locator('output[data-phase="reconnecting"]').waitFor();
    expect(await pressed(gate(one, 20))).toBe("true");
    await one.getByText("1 not saved").waitFor();
    await site.picture(one, "offline");
    await daemon.do("start");
    await Promise.all([live(one), live(other)]);
    await other.locator('tr[data-flight="ZZ20"].boarding').waitFor();
    await one.getByText("live", { exact: true }).waitFor();
    expect(await gate(one, 20).getAttribute("aria-pressed")).toBe("true");
    await record(flight(22, 3));
    await Promise.all([line(one, 22).waitFor(), line(other, 22).waitFor()]);
    await one.close();
    await other.close();
  });

  test("a tab without a network shows so, and what it missed when it is back", async () => {
    await record(flight(40, 1));
    const [one, other] = [await site.tab(daemon.addresses.ill), await site.tab(daemon.addresses.daemon)];
    await Promise.all([gate(one, 40).waitFor(), gate(other, 40).waitFor()]);
    await one.context().setOffline(true); // takes new connections alone
    await daemon.do("ill", "RESET");
    await one.locator('output[data-phase="reconnecting"]').waitFor();
    expect(await pressed(gate(one, 40))).toBe("true");
    await record(flight(41, 2));
    await line(other, 41).waitFor();
    expect(await line(one, 41).count()).toBe(0);
    expect(await gate(other, 40).getAttribute("aria-pressed")).toBe("false");
    await one.context().setOffline(false);
    await line(one, 41).waitFor();
    await other.locator('tr[data-flight="ZZ40"].boarding').waitFor();
    await one.close();
    await other.close();
  });

  test("airports are found, delays drawn, and another airport shown", async () => {
    await record(flight(30, 7, "LGA"));
    const page = await site.tab(daemon.addresses.daemon);
    await page.getByRole("searchbox").fill("lo");
    await page.getByText("London-Corbin").waitFor();
    await page.getByRole("searchbox").fill("los");
    await page.getByText("London-Corbin").waitFor({ state: "detached" });
    expect(await page.locator(".search li").allTextContents()).toEqual(["LAX Los Angeles Intl, 126 ft"]);
    await page.getByRole("button", { name: "LaGuardia" }).click();
    await line(page, 30).waitFor();
    expect(await page.locator("tbody tr").count()).toBe(1);
    await page.locator("svg rect").first().waitFor();
    expect(await page.locator("svg rect title").textContent()).toContain("7.0 min, 1 flights");
    await site.picture(page, "search");
    await page.close();
  });

  test("no page has met an error", () => {
    expect(site.complaints).toEqual([]);
  });
});

test.runIf(CHROMIUM === undefined)("without a Chromium, nothing of the above is tried", ({ skip }) => {
  skip("install Chromium (Debian: apt install chromium) to run the tests in a browser");
});
