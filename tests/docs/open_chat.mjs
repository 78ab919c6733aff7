// Opens the page of the React quick start in two tabs, writes in one and waits for the other to show it.

import { chromium } from "playwright-core";

const [address, program] = process.argv.slice(2);
const browser = await chromium.launch({ executablePath: program, args: ["--no-sandbox", "--disable-gpu"] });
try {
  const tabs = [await browser.newPage(), await browser.newPage()];
  for (const tab of tabs) {
    await tab.goto(address);
  }
  await tabs[0].locator("input").fill("hello");
  await tabs[0].getByRole("button").click();
  for (const tab of tabs) {
    await tab.locator("li", { hasText: "ada hello" }).waitFor();
  }
} finally {
  await browser.close();
}
