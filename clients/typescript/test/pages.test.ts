/** Pages against the real daemon: whatever is written, they show the beginning of the whole list. */

import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { Subscriptions } from "../src/subscriptions.js";
import { api, type Row } from "./support/bundle.js";
import { Daemon } from "./support/daemon.js";
import { until } from "./support/waiting.js";

let daemon: Daemon;

beforeAll(async () => {
  daemon = await Daemon.start("web");
});

afterAll(async () => {
  await daemon.end();
});

/** A client that shows a board whole and page by page, and what it was told while these differed. */
async function paging(board: string, numItems: number) {
  const client = daemon.client();
  const whole = client.watch(api.rows.listed, { board });
  const pages = client.paginate(api.rows.ranked, { board }, { initialNumItems: numItems });
  const wrong: unknown[] = [];
  const look = () => {
    const [all = [], { results, status }] = [whole.localResult(), pages.localResult()];
    const begins = results.every(
      (row, place) => row._id === all[place]?._id && row.rank === all[place]?.rank,
    );
    if (!begins || (status === "Exhausted" && results.length !== all.length)) {
      wrong.push({ status, results: results.map(({ key }) => key), all: all.map(({ key }) => key) });
    }
  };
  whole.onUpdate(() => {});
  await until(whole.onUpdate, () => whole.localResult() !== undefined);
  const unfollow = pages.onUpdate(look);
  const stands = (fits: (shown: { results: Row[]; status: string }) => boolean) =>
    until(pages.onUpdate, () => fits(pages.localResult()) && pages.localResult());
  return { client, pages, whole, wrong, stands, unfollow };
}

test("pages are loaded one behind the other", async () => {
  const board = "loaded";
  await daemon.do("call", "mutation", "rows:fill", { board, first: 0, number: 12 });
  const { pages, wrong, stands, unfollow } = await paging(board, 5);
  expect(pages.localResult()).toMatchObject({ status: "LoadingFirstPage", results: [] });
  expect(pages.loadMore()).toBe(false);
  expect((await stands(({ status }) => status === "CanLoadMore")).results).toHaveLength(5);
  expect(pages.loadMore()).toBe(true);
  expect(pages.localResult().status).toBe("LoadingMore");
  expect(pages.loadMore()).toBe(false);
  expect((await stands(({ status }) => status === "CanLoadMore")).results).toHaveLength(10);
  const before = pages.localResult().results;
  pages.loadMore(7);
  const all = await stands(({ status }) => status === "Exhausted");
  expect(all.results).toHaveLength(12);
  expect(all.results.slice(0, 10).every((row, place) => row === before[place])).toBe(true);
  expect(pages.loadMore()).toBe(false);
  expect(wrong).toStrictEqual([]);
  unfollow();
  expect(pages.localResult().status).toBe("LoadingFirstPage");
});

test("they are split where rows gather and joined where rows went, and show the same rows all the time", async () => {
  const follow = vi.spyOn(Subscriptions.prototype, "follow");
  const board = "split";
  await daemon.do("call", "mutation", "rows:fill", { board, first: 1000, number: 12 });
  const { client, pages, wrong, stands } = await paging(board, 5);
  await stands(({ status }) => status === "CanLoadMore");
  pages.loadMore();
  await stands(({ results }) => results.length === 10);
  const begun = follow.mock.calls.length;
  await client.mutation(api.rows.fill, { board, first: 0, number: 25 });
  const shown = (await stands(({ results }) => results.length === 35)).results;
  await client.mutation(api.rows.add, { board, key: "first", rank: -1 });
  const after = (await stands(({ results }) => results.length === 36)).results;
  expect(after.slice(1).every((row, place) => row === shown[place])).toBe(true);
  await until(
    (again) => {
      const timer = setInterval(again, 10);
      return () => clearInterval(timer);
    },
    () => follow.mock.calls.length > begun + 4,
  );
  await client.mutation(api.rows.remove, { board, first: -1, number: 1008 });
  await stands(({ results }) => results.length > 0 && results[0]?.rank === 1007);
  expect(wrong).toStrictEqual([]);
});

test("random writes of others never leave a gap or a double", async () => {
  const board = "random";
  const { client, pages, whole, wrong } = await paging(board, 4);
  let state = 7;
  const chance = (below: number) => {
    state = (state * 48_271) % 2_147_483_647;
    return state % below;
  };
  for (let step = 0; step < 60; step++) {
    const first = chance(200) * 10;
    if (chance(3) > 0) {
      await client.mutation(api.rows.add, { board, key: `${step}`, rank: first });
    } else {
      await client.mutation(api.rows.remove, { board, first, number: 200 });
    }
    pages.loadMore();
  }
  await until(pages.onUpdate, () => {
    const { results, status } = pages.localResult();
    pages.loadMore();
    return status === "Exhausted" && results.length === whole.localResult()?.length;
  });
  expect(wrong).toStrictEqual([]);
});

test("an optimistic update finds each page once, of all lists, and changes a row in all of them", async () => {
  const board = "updated";
  await daemon.do("call", "mutation", "rows:fill", { board, first: 0, number: 9 });
  const client = daemon.client();
  const lists = [2, 2, 3].map((initialNumItems) =>
    client.paginate(api.rows.ranked, { board }, { initialNumItems }),
  );
  for (const list of lists) {
    await until(list.onUpdate, () => list.localResult().status === "CanLoadMore");
    list.onUpdate(() => {});
  }
  await Promise.all(lists.map((list) => until(list.onUpdate, () => list.localResult().results.length > 0)));
  const found: unknown[] = [];
  const noted = client.mutation(
    api.rows.note,
    { board, key: "k1", text: "noted" },
    {
      optimisticUpdate(store, { key, text }) {
        for (const { args, value } of store.getAllQueries(api.rows.ranked)) {
          found.push([args.options.cursor, args.options.numItems]);
          const page = value.page.map((row) => (row.key === key ? { ...row, note: text } : row));
          store.setQuery(api.rows.ranked, args, { ...value, page });
        }
      },
    },
  );
  const notes = () => lists.map((list) => list.localResult().results.map(({ note }) => note));
  const changed = [
    ["", "noted"],
    ["", "noted"],
    ["", "noted", ""],
  ];
  expect(notes(), "before anything can have come").toStrictEqual(changed);
  expect(found.slice(0, 2)).toStrictEqual([
    [null, 2],
    [null, 3],
  ]);
  await noted;
  expect(notes()).toStrictEqual(changed);
});

test("a function that returns no page fails", async () => {
  const pages = daemon
    .client()
    .paginate(api.rows.listed as unknown as typeof api.rows.ranked, { board: "" }, { initialNumItems: 1 });
  const error = await until(pages.onUpdate, () => {
    try {
      pages.localResult();
      return undefined;
    } catch (error) {
      return error;
    }
  });
  expect(error).toMatchObject({ code: "invalid_arguments" });
});
