/** A real Chromium, and pages that Vite serves to it. */

import { existsSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import react from "@vitejs/plugin-react";
import { type Browser, chromium, type Page } from "playwright-core";
import { build, type InlineConfig, type PreviewServer, preview } from "vite";
import { ROOT } from "./python.js";

const PACKAGE = join(ROOT, "clients", "typescript");
/** Where pictures and figures are kept. */
export const ARTEFACTS = join(ROOT, "build", "browser");
const PROGRAMS = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
export const FLAGS = [
  "--no-sandbox", // which Chromium refuses to have as root
  "--disable-gpu",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--no-first-run",
];

/** Chromium of the machine; undefined where there is none. */
export const CHROMIUM = PROGRAMS.find((program) => existsSync(program));

/** What a test in a browser has around it. */
export class Site {
  readonly browser: Browser;
  readonly address: string;
  /** What pages have said of errors. */
  readonly complaints: string[] = [];
  private readonly server: PreviewServer;
  private readonly built: string;

  private constructor(browser: Browser, server: PreviewServer, built: string) {
    this.browser = browser;
    this.server = server;
    this.built = built;
    this.address = server.resolvedUrls?.local[0] ?? "";
  }

  /**
   * Build a folder for production, given from the root of the repository, with the client's sources as the
   * package `headwater`; serve it, and start a browser.
   */
  static async open(folder: string): Promise<Site> {
    const built = mkdtempSync(join(tmpdir(), "headwater-site-"));
    const ours = (name: string) => join(PACKAGE, "node_modules", name);
    const options: InlineConfig = {
      configFile: false,
      root: join(ROOT, folder),
      logLevel: "error",
      mode: "production",
      plugins: [react()],
      build: { outDir: built },
      preview: { host: "127.0.0.1", port: 0 },
      resolve: {
        alias: [
          { find: "headwater/react", replacement: join(PACKAGE, "src", "react", "index.ts") },
          { find: "headwater", replacement: join(PACKAGE, "src", "index.ts") },
          { find: /^react-dom(?=\/|$)/, replacement: ours("react-dom") },
          { find: /^react(?=\/|$)/, replacement: ours("react") },
        ],
      },
    };
    const { NODE_ENV } = process.env; // a test's own would give React's slow build
    process.env.NODE_ENV = "production";
    await build(options);
    process.env.NODE_ENV = NODE_ENV;
    const server = await preview(options);
    return new Site(
      await chromium.launch({ executablePath: CHROMIUM ?? "", headless: true, args: FLAGS }),
      server,
      built,
    );
  }

  /** Open a tab over a daemon, with `more` in its address; what goes wrong in it is kept. */
  async tab(daemon: string, more = ""): Promise<Page> {
    const page = await this.browser.newPage({ viewport: { width: 1280, height: 800 } });
    page.setDefaultTimeout(45_000);
    page.on("pageerror", (error) => this.complaints.push(String(error)));
    await page.goto(`${this.address}?server=${encodeURIComponent(daemon)}${more}`);
    return page;
  }

  /** Keep what a tab shows as a picture in `build/browser/`. */
  async picture(page: Page, name: string): Promise<void> {
    mkdirSync(ARTEFACTS, { recursive: true });
    await page.screenshot({ path: join(ARTEFACTS, `${name}.png`) });
  }

  async close(): Promise<void> {
    await this.browser.close();
    await this.server.close();
    rmSync(this.built, { recursive: true });
  }
}
