// @vitest-environment jsdom

import { createRoot, hydrateRoot } from "react-dom/client";
import { renderToString } from "react-dom/server";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { WebSocket } from "ws";
import { HeadwaterProvider, usePreloadedQuery, useQuery } from "../../src/react/index.js";
import { type Preloaded, preloadQuery } from "../../src/server/index.js";
import { api } from "../support/bundle.js";
import { Daemon } from "../support/daemon.js";
import { act, until } from "./rendering.js";

let daemon: Daemon;
beforeAll(async () => {
  daemon = await Daemon.start("web");
});
afterAll(() => daemon.end());

function Rows({ from }: { readonly from: Preloaded<typeof api.rows.listed> }) {
  const rows = usePreloadedQuery(from);
  const others = useQuery(api.rows.count, { board: "pre" });
  return `${rows.map((row) => row.key).join(" ")} ${others?.rows ?? "loading"}`;
}

test("what the server has rendered is taken over by the browser and stays live", async () => {
  const client = daemon.client("daemon", { webSocket: WebSocket });
  await client.mutation(api.rows.add, { board: "pre", key: "a", rank: 1 });
  const from = await preloadQuery(api.rows.listed, { board: "pre" }, { url: daemon.addresses.daemon });
  const page = (
    <HeadwaterProvider client={client}>
      <Rows from={from} />
    </HeadwaterProvider>
  );
  const complaints = vi.spyOn(console, "error");
  const container = document.createElement("div");
  container.innerHTML = renderToString(page);
  expect(container.textContent).toBe("a loading");
  const root = await act(async () => hydrateRoot(container, page));
  const shows = (text: string) =>
    until(
      () => container.textContent === text,
      () => container.textContent ?? "",
    );
  await shows("a 1");
  await client.mutation(api.rows.add, { board: "pre", key: "b", rank: 2 });
  await shows("a b 2");
  expect(complaints, "the browser renders what the server did").not.toHaveBeenCalled();
  act(() => root.unmount());
});

test("a preloaded document that is deleted is gone from the screen", async () => {
  const client = daemon.client("daemon", { webSocket: WebSocket });
  await client.mutation(api.rows.add, { board: "gone", key: "a", rank: 1 });
  const from = await preloadQuery(api.rows.first, { board: "gone" }, { url: daemon.addresses.daemon });
  function First() {
    return usePreloadedQuery(from)?.key ?? "none";
  }
  const container = document.createElement("div");
  const root = createRoot(container);
  act(() =>
    root.render(
      <HeadwaterProvider client={client}>
        <First />
      </HeadwaterProvider>,
    ),
  );
  expect(container.textContent).toBe("a");
  await client.mutation(api.rows.remove, { board: "gone", first: 1, number: 1 });
  await until(
    () => container.textContent === "none",
    () => container.textContent ?? "",
  );
  act(() => root.unmount());
});
