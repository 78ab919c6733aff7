import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { afterAll, beforeAll, expect, test } from "vitest";
import { functionReference } from "../src/index.js";
import {
  fetchAction,
  fetchMutation,
  fetchQuery,
  preloadedQueryResult,
  preloadQuery,
} from "../src/server/index.js";
import { api } from "./support/bundle.js";
import { Daemon } from "./support/daemon.js";

let daemon: Daemon;
let url: string;
beforeAll(async () => {
  daemon = await Daemon.start("web");
  url = daemon.addresses.daemon;
});
afterAll(() => daemon.end());

test("a mutation and a query, one request each", async () => {
  const id = await fetchMutation(api.rows.add, { board: "http", key: "a", rank: 1 }, { url });
  const rows = await fetchQuery(api.rows.listed, { board: "http" }, { url: url.replace("ws:", "http:") });
  expect(rows).toMatchObject([{ _id: id, key: "a", rank: 1 }]);
});

test("an action, one request", async () => {
  expect(await fetchAction(api.acts.fill, { board: "acts", keys: ["a"] }, { url })).toBe(1);
  await expect(fetchAction(api.acts.slow, {} as { seconds: number }, { url })).rejects.toMatchObject({
    code: "invalid_arguments",
  });
});

test("values are those that the client gets over its connection", async () => {
  const given = {
    whole: 7,
    real: 1.5,
    marked: 5n,
    text: "é",
    content: new Uint8Array([0, 255]),
    moment: new Date("2013-01-01T00:00:00.123Z"),
    rest: [null, true, Number.NaN, -0, 2n ** 62n],
  };
  const over = await fetchQuery(api.values.typed, given, { url });
  expect(over).toEqual(await daemon.client().query(api.values.typed, given));
  expect(over.given).toEqual(given);
});

test("failures come as errors of their code", async () => {
  await expect(fetchQuery(api.rows.fails, { board: "none" }, { url })).rejects.toMatchObject({
    name: "ApplicationError",
    code: "application_error",
    data: { board: "none", rows: 0 },
  });
  const unknown = functionReference<"mutation", Record<string, never>>("rows:absent");
  await expect(fetchMutation(unknown, {}, { url })).rejects.toMatchObject({ code: "unknown_function" });
  const misfit = { board: 5 as unknown as string };
  await expect(fetchQuery(api.rows.listed, misfit, { url })).rejects.toMatchObject({
    code: "invalid_arguments",
  });
  await expect(fetchQuery(api.rows.listed, { board: "" }, { url: "nowhere" })).rejects.toMatchObject({
    code: "invalid_request",
  });
  const nobody = fetchMutation(api.rows.refuse, { board: "" }, { url: "http://127.0.0.1:9" });
  await expect(nobody).rejects.toMatchObject({ code: "connection_lost" });
});

test("a preloaded query is plain text with the result in it", async () => {
  await fetchMutation(api.rows.add, { board: "pre", key: "a", rank: 1 }, { url });
  const preloaded = await preloadQuery(api.rows.listed, { board: "pre" }, { url });
  const sent = JSON.parse(JSON.stringify(preloaded)) as typeof preloaded;
  expect(sent).toEqual(preloaded);
  expect(preloadedQueryResult(sent)).toMatchObject([{ key: "a" }]);
});

test.each([
  ["<html>", "internal_error"],
  ['{"status": "success", "value": "no base64!"}', "protocol_error"],
  ['{"status": "success", "value": "wcHB"}', "protocol_error"],
])("a token goes along, and an answer of somebody else is told as such: %s", async (answer, code) => {
  const seen: (string | undefined)[] = [];
  const other: Server = createServer((request, response) => {
    seen.push(request.headers.authorization);
    response.end(answer);
  });
  await new Promise<void>((resolve) => other.listen(0, "127.0.0.1", resolve));
  try {
    const address = `http://127.0.0.1:${(other.address() as AddressInfo).port}`;
    const asked = fetchQuery(api.rows.listed, { board: "" }, { url: address, token: "t1" });
    await expect(asked).rejects.toMatchObject({
      name: expect.stringMatching(/^(Headwater|Protocol)Error$/),
      code,
    });
    expect(seen).toEqual(["Bearer t1"]);
  } finally {
    await new Promise((resolve) => other.close(resolve));
  }
});
