/** Signed in against a real daemon, from Node.js. */

import { afterAll, beforeAll, expect, test } from "vitest";
import { WebSocket } from "ws";
import type { HeadwaterClient } from "../src/index.js";
import { Daemon } from "./support/daemon.js";
import { STAFF, users, userToken } from "./support/users.js";

let daemon: Daemon;
beforeAll(async () => {
  daemon = await Daemon.start("identity", "--token-leeway-s", "0");
});
afterAll(() => daemon.end());

const opened = () => daemon.client("daemon", { webSocket: WebSocket as never });

/** Note who the daemon says that a client is. */
function whoami(client: HeadwaterClient): (string | null | undefined)[] {
  const seen: (string | null | undefined)[] = [];
  const watch = client.watch(users.notes.whoami, {});
  watch.onUpdate(() => seen.push(watch.localResult()));
  return seen;
}

/** Wait until something holds. */
async function until(holds: () => boolean): Promise<void> {
  await expect.poll(holds, { timeout: 20_000, interval: 10 }).toBe(true);
}

const write = (client: HeadwaterClient, text: string) =>
  client.mutation(users.notes.write, { topic: "t", text });

test("in, as somebody else, and out", async () => {
  const client = opened();
  const told: boolean[] = [];
  client.setAuth(
    async () => userToken("ada"),
    (authenticated) => told.push(authenticated),
  );
  const seen = whoami(client);
  expect(await write(client, "x")).toBe(`${STAFF}|ada: x`);
  await until(() => seen.at(-1) === `${STAFF}|ada`);
  client.setAuth(async () => userToken("bob"));
  await until(() => seen.at(-1) === `${STAFF}|bob`);
  expect(await write(client, "y")).toBe(`${STAFF}|bob: y`);
  client.clearAuth();
  await until(() => seen.at(-1) === null);
  await expect(write(client, "z")).rejects.toMatchObject({ code: "unauthenticated" });
  expect(seen).toStrictEqual([`${STAFF}|ada`, `${STAFF}|bob`, null]);
  expect(told).toStrictEqual([true]);
});

test("a token that is refused is replaced, and calls wait for the one that is not", async () => {
  const client = opened();
  const asked: boolean[] = [];
  client.setAuth(async ({ forceRefresh }) => {
    asked.push(forceRefresh);
    return forceRefresh ? userToken("ada") : "a.bad.token";
  });
  expect(await write(client, "x")).toBe(`${STAFF}|ada: x`);
  expect(asked).toStrictEqual([false, true]);
});

test("calls of a user whose tokens are all refused are not run as nobody's", async () => {
  const client = opened();
  const told: boolean[] = [];
  client.setAuth(
    async () => "a.bad.token",
    (authenticated) => told.push(authenticated),
  );
  await expect(write(client, "x")).rejects.toMatchObject({ code: "unauthenticated" });
  await until(() => told.length > 0);
  expect(told).toStrictEqual([false]);
  expect(await client.query(users.notes.whoami, {})).toBeNull();
});

test("a token that ends is replaced, and what is called meanwhile waits", async () => {
  const client = opened();
  const told: string[] = [];
  let release = (): void => {};
  const released = new Promise<void>((resolve) => {
    release = resolve;
  });
  client.setAuth(
    async ({ forceRefresh }) => {
      if (!forceRefresh) {
        return userToken("ada", 1);
      }
      await released;
      return userToken("ada");
    },
    (authenticated, isRefreshing) => told.push(isRefreshing ? "refreshing" : String(authenticated)),
  );
  const seen = whoami(client);
  await until(() => seen.at(-1) === `${STAFF}|ada`);
  await until(() => seen.at(-1) === null);
  const writing = write(client, "x");
  release();
  expect(await writing).toBe(`${STAFF}|ada: x`);
  await until(() => seen.at(-1) === `${STAFF}|ada`);
  expect(told).toStrictEqual(["true", "refreshing", "true"]);
});
