// @vitest-environment jsdom

import { PassThrough } from "node:stream";
import { type ReactNode, Suspense } from "react";
import { hydrateRoot } from "react-dom/client";
import { renderToPipeableStream } from "react-dom/server";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { WebSocket } from "ws";
import type { HeadwaterClient } from "../../src/index.js";
import { HeadwaterProvider, useSuspenseQuery } from "../../src/react/index.js";
import { api } from "../support/bundle.js";
import { Daemon } from "../support/daemon.js";
import { act, until } from "./rendering.js";

let daemon: Daemon;
beforeAll(async () => {
  daemon = await Daemon.start("web");
});
afterAll(() => daemon.end());

function Rows() {
  const rows = useSuspenseQuery(api.rows.listed, { board: "rendered" });
  return <b>{rows.map((row) => row.key).join(" ")}</b>;
}

function pageOf(client: HeadwaterClient): ReactNode {
  return (
    <HeadwaterProvider client={client}>
      <Suspense fallback={<i>waits</i>}>
        <Rows />
      </Suspense>
    </HeadwaterProvider>
  );
}

/** Return what a server sends once nothing waits any more. */
function served(page: ReactNode): Promise<string> {
  return new Promise((resolve, reject) => {
    const parts: string[] = [];
    const out = new PassThrough();
    out.on("data", (part) => parts.push(String(part)));
    out.on("end", () => resolve(parts.join("")));
    const stream = renderToPipeableStream(page, { onAllReady: () => stream.pipe(out), onError: reject });
  });
}

test("a server waits for the result as well, and the browser takes it over and stays live", async () => {
  const [theirs, ours] = [0, 1].map(() => daemon.client("daemon", { webSocket: WebSocket })) as [
    HeadwaterClient,
    HeadwaterClient,
  ];
  await ours.mutation(api.rows.add, { board: "rendered", key: "a", rank: 1 });
  const html = await served(pageOf(theirs));
  expect(html).toContain("<b>a</b>");
  const complaints = vi.spyOn(console, "error");
  const container = document.createElement("div");
  container.innerHTML = html;
  const root = await act(async () => hydrateRoot(container, pageOf(ours)));
  const shows = (text: string) =>
    until(
      () => container.querySelector("b")?.textContent === text,
      () => container.textContent ?? "",
    );
  await shows("a");
  await ours.mutation(api.rows.add, { board: "rendered", key: "b", rank: 2 });
  await shows("a b");
  // That server and browser are one process here, React does not like; elsewhere they are not.
  const others = complaints.mock.calls.filter(([text]) => !String(text).includes("multiple renderers"));
  expect(others).toEqual([]);
  act(() => root.unmount());
});
