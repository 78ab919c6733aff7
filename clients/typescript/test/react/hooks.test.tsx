// @vitest-environment jsdom

import { memo, Suspense, useEffect, useState } from "react";
import { afterAll, afterEach, beforeAll, expect, test, vi } from "vitest";
import { WebSocket } from "ws"; // that of jsdom has buffers of its own realm
import type { HeadwaterClient } from "../../src/index.js";
import {
  useAction,
  useConnectionState,
  useMutation,
  usePaginatedQuery,
  useQueries,
  useQuery,
  useSuspenseQuery,
} from "../../src/react/index.js";
import { api, type Row } from "../support/bundle.js";
import { Daemon } from "../support/daemon.js";
import { act, Boundary, cleanup, rendered, settle, shows, until } from "./rendering.js";

let daemon: Daemon;
let client: HeadwaterClient;
beforeAll(async () => {
  daemon = await Daemon.start("web");
  client = daemon.client("daemon", { webSocket: WebSocket });
});
afterAll(() => daemon.end());
afterEach(cleanup);

const keys = (rows: readonly Row[] | undefined) =>
  rows?.map((row) => row.key + row.note).join(" ") ?? "loading";

function Listed({ board }: { readonly board: string }) {
  return keys(useQuery(api.rows.listed, { board }));
}

/** As somebody else would. */
const add = (board: string, key: string, rank: number) =>
  daemon.do("call", "mutation", "rows:add", { board, key, rank });

test("a query shows that it loads, its result, and each change", async () => {
  const view = rendered(client, <Listed board="query" />);
  expect(view.text()).toBe("loading");
  await shows(view, "");
  await add("query", "a", 1);
  await shows(view, "a");
  await add("query", "b", 2);
  await shows(view, "a b");
  view.rerender(<Listed board="another" />);
  expect(view.text()).toBe("loading");
  await shows(view, "");
});

test("an action is run by a function that stays the same, and its changes are shown", async () => {
  const seen = new Set<unknown>();
  function Filled() {
    const fill = useAction(api.acts.fill);
    useEffect(() => {
      seen.add(fill); // of renders that React keeps: in strict mode it may throw the first one away
    });
    const [count, setCount] = useState(0);
    const click = () => fill({ board: "action", keys: ["a", "b"] }).then(setCount);
    return (
      <button type="button" onClick={click}>
        {count} {keys(useQuery(api.rows.listed, { board: "action" }))}
      </button>
    );
  }
  const view = rendered(client, <Filled />);
  await shows(view, "0 ");
  act(() => view.container.querySelector("button")?.click());
  await shows(view, "2 a b");
  expect(seen.size).toBe(1);
});

test("a query that is skipped asks nothing until it is not", async () => {
  const watch = vi.spyOn(client, "watch");
  function Maybe({ board }: { readonly board: string | null }) {
    const rows = useQuery(api.rows.listed, board === null ? "skip" : { board });
    const paged = usePaginatedQuery(api.rows.ranked, board === null ? "skip" : { board }, {
      initialNumItems: 2,
    });
    return `${keys(rows)}, ${paged.status} ${paged.results.length}`;
  }
  const view = rendered(client, <Maybe board={null} />);
  expect(view.text()).toBe("loading, LoadingFirstPage 0");
  expect(watch).not.toHaveBeenCalled();
  watch.mockRestore();
  view.rerender(<Maybe board="skipped" />);
  await shows(view, ", Exhausted 0");
  view.rerender(<Maybe board={null} />);
  expect(view.text()).toBe("loading, LoadingFirstPage 0");
});

test("rows that stay as they are do not render again", async () => {
  const renders: string[] = [];
  const One = memo(({ row }: { readonly row: Row }) => {
    renders.push(row.key);
    return `${row.key} `;
  });
  function Rows() {
    return useQuery(api.rows.listed, { board: "memo" })?.map((row) => <One key={row._id} row={row} />);
  }
  await daemon.do("call", "mutation", "rows:fill", { board: "memo", first: 0, number: 20 });
  const view = rendered(client, <Rows />);
  await until(() => view.text().includes("k19"));
  renders.length = 0;
  await add("memo", "new", 10);
  await until(() => view.text().includes("new"));
  expect(new Set(renders)).toEqual(new Set(["new"]));
});

test("what a query fails with is thrown for a boundary", async () => {
  const quiet = vi.spyOn(console, "error").mockImplementation(() => {});
  function Fails() {
    return String(useQuery(api.rows.fails, { board: "x" }));
  }
  const view = rendered(
    client,
    <Boundary>
      <Fails />
    </Boundary>,
  );
  await shows(view, "failed: application_error");
  quiet.mockRestore();
});

test("a component in another's place has its result at once", async () => {
  const seen: string[] = [];
  function Place({ name }: { readonly name: string }) {
    const shown = keys(useQuery(api.rows.listed, { board: "place" }));
    seen.push(shown);
    return `${name}: ${shown}`;
  }
  await add("place", "a", 1);
  const view = rendered(client, <Place key="one" name="one" />);
  await shows(view, "one: a");
  seen.length = 0;
  view.rerender(<Place key="two" name="two" />);
  await settle();
  expect(view.text()).toBe("two: a");
  expect(seen).not.toContain("loading");
});

test("a query ends with the last component, and nothing is rendered behind that", async () => {
  const complaints = vi.spyOn(console, "error");
  const view = rendered(client, <Listed board="ends" />);
  await shows(view, "");
  const watch = client.watch(api.rows.listed, { board: "ends" });
  expect(watch.localResult()).toEqual([]);
  view.unmount();
  await Promise.resolve();
  expect(watch.localResult()).toBeUndefined();
  await add("ends", "a", 1);
  await client.query(api.rows.listed, { board: "ends" });
  expect(complaints).not.toHaveBeenCalled();
  complaints.mockRestore();
});

test("many queries at once, of which one fails, and one is added", async () => {
  const renders: string[] = [];
  function Many({ boards }: { readonly boards: readonly string[] }) {
    const results = useQueries({
      ...Object.fromEntries(boards.map((board) => [board, { query: api.rows.listed, args: { board } }])),
      wrong: { query: api.rows.fails, args: { board: "x" } },
    });
    const shown = Object.entries(results).map(([name, result]) =>
      result instanceof Error ? `${name} ${result.name}` : `${name} ${keys(result as Row[] | undefined)}`,
    );
    renders.push(shown.join(", "));
    return shown.join(", ");
  }
  await add("many1", "a", 1);
  const view = rendered(client, <Many boards={["many1"]} />);
  await shows(view, "many1 a, wrong ApplicationError");
  renders.length = 0;
  view.rerender(<Many boards={["many1", "many2"]} />);
  await shows(view, "many1 a, many2 , wrong ApplicationError");
  expect(renders.filter((text) => text.includes("many1 loading"))).toEqual([]);
  await add("many2", "b", 1);
  await shows(view, "many1 a, many2 b, wrong ApplicationError");
});

test("an optimistic update shows at once, and goes with the result or the failure", async () => {
  let gate: Promise<unknown> = Promise.resolve();
  const frames: string[] = [];
  function Board() {
    const rows = useQuery(api.rows.listed, { board: "optimistic" });
    const note = useMutation(api.rows.note).withOptimisticUpdate((store, { board, key, text }) => {
      const shown = store.getQuery(api.rows.listed, { board });
      if (shown !== undefined) {
        store.setQuery(
          api.rows.listed,
          { board },
          shown.map((row) => (row.key === key ? { ...row, note: `${text}?` } : row)),
        );
      }
    });
    const refuse = useMutation(api.rows.refuse).withOptimisticUpdate((store, { board }) => {
      store.setQuery(api.rows.listed, { board }, []);
    });
    frames.push(keys(rows));
    return (
      <>
        <p>{keys(rows)}</p>
        <button
          type="button"
          id="note"
          onClick={() => {
            gate = note({ board: "optimistic", key: "a", text: "-noted" });
          }}
        />
        <button
          type="button"
          id="refuse"
          onClick={() => {
            gate = refuse({ board: "optimistic" }).catch((error: Error) => error.name);
          }}
        />
      </>
    );
  }
  await add("optimistic", "a", 1);
  const view = rendered(client, <Board />);
  await shows(view, "a");
  const press = (id: string) => act(() => view.container.querySelector<HTMLElement>(`#${id}`)?.click());
  frames.length = 0;
  press("note");
  expect(view.text()).toBe("a-noted?");
  await act(() => gate);
  await shows(view, "a-noted");
  press("refuse");
  expect(view.text()).toBe("");
  await act(async () => expect(await gate).toBe("ApplicationError"));
  await shows(view, "a-noted");
  expect([...new Set(frames)]).toEqual(["a-noted?", "a-noted", ""]);
});

test("a mutation's function is the same at each render", async () => {
  const seen = new Set<unknown>();
  function Calls() {
    const [count, setCount] = useState(0);
    seen.add(useMutation(api.rows.add));
    return (
      <button type="button" onClick={() => setCount(count + 1)}>
        {count}
      </button>
    );
  }
  const view = rendered(client, <Calls />);
  const before = seen.size; // strict mode makes it twice at first
  act(() => view.container.querySelector("button")?.click());
  expect(view.text()).toBe("1");
  expect(seen.size).toBe(before);
});

test("pages are one list that grows on demand and stays live", async () => {
  let more = (): void => {};
  function Pages() {
    const { results, status, isLoading, loadMore } = usePaginatedQuery(
      api.rows.ranked,
      { board: "pages" },
      { initialNumItems: 3 },
    );
    more = () => loadMore(4);
    return `${results.map((row) => row.key).join(" ")} ${status}${isLoading ? "…" : ""}`;
  }
  await daemon.do("call", "mutation", "rows:fill", { board: "pages", first: 0, number: 9 });
  const view = rendered(client, <Pages />);
  expect(view.text()).toBe(" LoadingFirstPage…");
  await shows(view, "k0 k1 k2 CanLoadMore");
  act(() => more());
  expect(view.text()).toBe("k0 k1 k2 LoadingMore…");
  await shows(view, "k0 k1 k2 k3 k4 k5 k6 CanLoadMore");
  act(() => more());
  await shows(view, "k0 k1 k2 k3 k4 k5 k6 k7 k8 Exhausted");
  await add("pages", "first", -1);
  await shows(view, "first k0 k1 k2 k3 k4 k5 k6 k7 k8 Exhausted");
  view.unmount();
  const again = rendered(client, <Pages />);
  // A page that the server still has keeps its end.
  await until(() => /^first k0 k1( k2)? CanLoadMore$/.test(again.text()), again.text);
});

let waited = 0;
function Fallback() {
  waited += 1;
  return "waits";
}

test("with suspense, a component waits for its result and stays live", async () => {
  function Waits() {
    return keys(useSuspenseQuery(api.rows.listed, { board: "suspense" }));
  }
  const complaints = vi.spyOn(console, "error");
  const page = (
    <Suspense fallback={<Fallback />}>
      <Waits />
    </Suspense>
  );
  const view = await act(async () => rendered(client, page));
  expect(complaints).not.toHaveBeenCalled();
  await shows(view, "");
  expect(waited).toBeGreaterThan(0);
  await add("suspense", "a", 1);
  await shows(view, "a");
  expect(complaints).not.toHaveBeenCalled();
  complaints.mockRestore();
});

test("with suspense, a failure reaches the boundary", async () => {
  const quiet = vi.spyOn(console, "error").mockImplementation(() => {});
  function Fails() {
    return String(useSuspenseQuery(api.rows.fails, { board: "suspense" }));
  }
  const page = (
    <Boundary>
      <Suspense fallback="waits">
        <Fails />
      </Suspense>
    </Boundary>
  );
  const view = await act(async () => rendered(client, page));
  await shows(view, "failed: application_error");
  quiet.mockRestore();
});

test("hooks say what they miss", () => {
  const quiet = vi.spyOn(console, "error").mockImplementation(() => {});
  expect(() => rendered(null as unknown as HeadwaterClient, <Listed board="none" />)).toThrow(
    "HeadwaterProvider",
  );
  quiet.mockRestore();
});

test("the state of the connection is shown, also over a daemon that comes back", async () => {
  const own = await Daemon.start("web");
  try {
    const phases: string[] = [];
    function State() {
      const { phase, hasInflightRequests } = useConnectionState();
      phases.push(phase);
      return `${phase}${hasInflightRequests ? " busy" : ""}`;
    }
    const ours = own.client("daemon", { webSocket: WebSocket });
    const view = rendered(
      ours,
      <>
        <State /> <Listed board="state" />
      </>,
    );
    await shows(view, "open ");
    await own.do("kill");
    await until(() => view.text().startsWith("reconnecting"));
    let sent: Promise<unknown> = Promise.resolve();
    act(() => {
      sent = ours.mutation(api.rows.add, { board: "state", key: "kept", rank: 1 });
    });
    await until(() => view.text() === "reconnecting busy ");
    await own.do("start");
    await shows(view, "open kept");
    await sent;
    expect([...new Set(phases)]).toEqual(["connecting", "open", "reconnecting"]);
  } finally {
    cleanup();
    await own.end();
  }
});
