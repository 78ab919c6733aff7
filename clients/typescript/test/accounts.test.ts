/** Signed in at accounts of a bundle, against a real daemon, from Node.js. */

import { afterAll, beforeAll, expect, test } from "vitest";
import { WebSocket } from "ws";
import { AccountClient, type TokenStorage } from "../src/accounts/index.js";
import { type FunctionReference, makeApi } from "../src/index.js";
import { Daemon } from "./support/daemon.js";

interface Api {
  auth: { whoami: FunctionReference<"query", Record<string, never>, string | null> };
}

const api = makeApi<Api>();
const PASSWORD = "correct horse battery";

let daemon: Daemon;
beforeAll(async () => {
  daemon = await Daemon.start("accounts_plain");
});
afterAll(() => daemon.end());

/** What windows of one browser share; tells what was kept, in order. */
class Browser implements TokenStorage {
  readonly kept: (string | null)[] = [];
  private readonly values = new Map<string, string>();

  getItem(key: string): string | null {
    return this.values.get(key) ?? null;
  }

  setItem(key: string, value: string): void {
    this.values.set(key, value);
    this.kept.push(value);
  }

  removeItem(key: string): void {
    this.values.delete(key);
    this.kept.push(null);
  }
}

const account = (storage: TokenStorage = new Browser(), way: "daemon" | "cut" = "daemon") =>
  new AccountClient(daemon.addresses[way], { storage });

const force = { forceRefresh: true };
const keep = { forceRefresh: false };

async function until(holds: () => boolean): Promise<void> {
  await expect.poll(holds, { timeout: 20_000, interval: 10 }).toBe(true);
}

test("in and out", async () => {
  const ada = account();
  const told: boolean[] = [];
  const leave = ada.subscribe(() => told.push(ada.isSignedIn()));
  expect(ada.isSignedIn()).toBe(false);
  expect(await ada.fetchToken(keep)).toBe(null);
  await ada.signUp("ada", PASSWORD);
  const client = daemon.client("daemon", { webSocket: WebSocket as never });
  client.setAuth(ada.fetchToken);
  const seen: (string | null | undefined)[] = [];
  const watch = client.watch(api.auth.whoami, {});
  watch.onUpdate(() => seen.push(watch.localResult()));
  await until(() => seen.at(-1) === "ada");
  await ada.signOut();
  await until(() => seen.at(-1) === null);
  expect(await ada.fetchToken(force)).toBe(null);
  expect(told).toStrictEqual([true, false]);
  leave();
  await ada.signIn("ADA", PASSWORD, "another one");
  expect(told).toStrictEqual([true, false]);
  await expect(account().signIn("ada", PASSWORD)).rejects.toMatchObject({ code: "unauthenticated" });
  await expect(account().signUp("ada", PASSWORD)).rejects.toMatchObject({ data: { code: "taken" } });
  await expect(account().signUp("short", "1234567")).rejects.toMatchObject({ code: "invalid_request" });
});

test("a token is kept, and one answer serves all who ask for another at once", async () => {
  const browser = new Browser();
  const one = account(browser);
  await one.signUp("keeping", PASSWORD);
  const first = await one.fetchToken(keep);
  expect(await one.fetchToken(keep)).toBe(first);
  const forced = await Promise.all([1, 2, 3].map(() => one.fetchToken(force)));
  expect(new Set([first, ...forced]).size).toBe(2);
  expect(browser.kept).toHaveLength(2);
});

test("windows of one browser share a sign-in, also when both refresh at once", async () => {
  const browser = new Browser();
  const [one, two] = [account(browser), account(browser)];
  await one.signUp("windows", PASSWORD);
  expect(two.isSignedIn()).toBe(true);
  for (let round = 0; round < 3; round++) {
    const tokens = await Promise.all([one.fetchToken(force), two.fetchToken(force)]);
    expect(tokens.every((token) => token !== null)).toBe(true);
  }
  await two.signOut();
  expect(one.isSignedIn()).toBe(false);
  expect(await one.fetchToken(keep)).toBe(null);
});

test("another window's newer token is seen", async () => {
  const browser = new Browser();
  const [one, two] = [account(browser), account(browser)];
  await one.signUp("newer", PASSWORD);
  await two.fetchToken(force);
  await two.fetchToken(force);
  expect(await one.fetchToken(keep)).not.toBe(null); // with the one that was first it would end the session
  expect(await two.fetchToken(force)).not.toBe(null);
});

test("a server that is away is waited for", async () => {
  const one = account();
  await one.signUp("waiting", PASSWORD);
  await daemon.do("kill");
  let fetched: string | null | undefined;
  const fetching = one.fetchToken(force).then((token) => {
    fetched = token;
  });
  await new Promise((resolve) => setTimeout(resolve, 500));
  expect(fetched).toBe(undefined);
  await expect(account().signIn("waiting", PASSWORD)).rejects.toMatchObject({ code: "connection_lost" });
  await daemon.do("start");
  await fetching;
  expect(fetched).toEqual(expect.any(String));
});

test("without anything to finish, nothing is", async () => {
  expect(await account().finish("https://app.example.com/signed-in")).toBe(false);
  expect(await account().finish("https://app.example.com/signed-in?state=a&code=b")).toBe(false);
});

test("a place that forbids its storage gets memory", async () => {
  Object.defineProperty(globalThis, "localStorage", {
    configurable: true,
    get() {
      throw new Error("forbidden");
    },
  });
  try {
    const one = new AccountClient(daemon.addresses.daemon);
    await one.signUp("forbidden", PASSWORD);
    expect(one.isSignedIn()).toBe(true);
  } finally {
    Reflect.deleteProperty(globalThis, "localStorage");
  }
});
