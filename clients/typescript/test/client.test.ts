/** The client against the real daemon. */

import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { WebSocket } from "ws";
import { ApplicationError, HeadwaterClient, type HeadwaterError, Moment } from "../src/index.js";
import { api, type Row } from "./support/bundle.js";
import { Daemon } from "./support/daemon.js";
import { HandSocket } from "./support/environment.js";
import { frameOf } from "./support/frames.js";
import { shows, until } from "./support/waiting.js";

let daemon: Daemon;

beforeAll(async () => {
  daemon = await Daemon.start("web", "--heartbeat-s", "1");
});

afterAll(async () => {
  await daemon.end();
});

let boards = 0;
/** Return the name of a board that no other test uses. */
function newBoard(): string {
  return `board ${++boards}`;
}

describe("calls", () => {
  test("values arrive in Python as what they are, and come back equal", async () => {
    const given = {
      whole: 7,
      real: 2,
      marked: 5n,
      text: "grüße 🐟",
      content: new Uint8Array([0, 255]),
      moment: new Moment(Date.UTC(2026, 10, 21, 1, 2, 3, 4), 5),
      rest: [null, true, -1.5, 2n ** 60n, { a: [] }],
    };
    const { given: back, types } = await daemon.client().query(api.values.typed, given);
    expect(back).toStrictEqual(given);
    expect(types).toMatchObject({
      whole: "int",
      real: "float",
      marked: "Int64",
      content: "bytes",
      moment: "datetime",
    });
  });

  test("a call that cannot be made leaves its room to the next one", async () => {
    const [client, board] = [daemon.client("daemon", { inFlightMax: 1 }), newBoard()];
    const add = (key: string, optimisticUpdate = () => {}) =>
      client.mutation(api.rows.add, { board, key, rank: 0 }, { optimisticUpdate });
    const [first, failing, last] = [
      add("a"),
      add("b", () => {
        throw new Error("an update that fails at once");
      }),
      add("c"),
    ];
    await expect(failing).rejects.toThrow("at once");
    await Promise.all([first, last]);
  });

  test("a mutation's effect is in what the client shows when it resolves", async () => {
    const [client, board] = [daemon.client(), newBoard()];
    const watch = client.watch(api.rows.listed, { board });
    const unfollow = watch.onUpdate(() => {});
    for (let rank = 0; rank < 5; rank++) {
      const id = await client.mutation(api.rows.add, { board, key: `k${rank}`, rank });
      expect(watch.localResult()?.map(({ _id }) => _id)).toContain(id);
    }
    unfollow();
    expect(watch.localResult()).toBeUndefined();
  });

  test("errors of functions reach the caller, with their data", async () => {
    const [client, board] = [daemon.client(), newBoard()];
    const refused = await client.mutation(api.rows.refuse, { board }).catch((error: unknown) => error);
    expect(refused).toBeInstanceOf(ApplicationError);
    expect((refused as ApplicationError).data).toStrictEqual({ code: "refused", board });
    const watch = client.watch(api.rows.fails, { board });
    const error = await until(watch.onUpdate, () => {
      try {
        watch.localResult();
        return undefined;
      } catch (error) {
        return error as HeadwaterError;
      }
    });
    expect(error.data).toStrictEqual({ board, rows: 0 });
    await expect(client.query(api.rows.fails, { board })).rejects.toThrow(ApplicationError);
  });

  test("wrong arguments reject with what is wrong with them", async () => {
    const client = daemon.client();
    const wrong = { board: 7 } as unknown as { board: string };
    await expect(client.query(api.rows.listed, wrong)).rejects.toMatchObject({ code: "invalid_arguments" });
    const none = { board: Symbol() } as unknown as { board: string };
    await expect(client.query(api.rows.listed, none)).rejects.toThrow("at `$.board`");
  });

  test("an action runs, and what it has written is seen by live queries", async () => {
    const [client, board] = [daemon.client(), newBoard()];
    const watch = client.watch(api.rows.listed, { board });
    const unfollow = watch.onUpdate(() => {});
    expect(await client.action(api.acts.fill, { board, keys: ["a", "b"] })).toBe(2);
    expect(await shows(watch, (rows) => rows.length === 2)).toHaveLength(2);
    unfollow();
    const wrong = { board, keys: 5 } as unknown as { board: string; keys: string[] };
    await expect(client.action(api.acts.fill, wrong)).rejects.toMatchObject({ code: "invalid_arguments" });
  });

  test("many actions wait side by side", async () => {
    const client = daemon.client();
    const calls = Array.from({ length: 200 }, () => client.action(api.acts.slow, { seconds: 0.2 }));
    expect(client.connectionState().inflightActions).toBe(200);
    expect(new Set(await Promise.all(calls))).toEqual(new Set(["done"]));
    expect(client.connectionState().inflightActions).toBe(0);
  });

  test("more calls than may be in flight are made in their order", async () => {
    const [client, board] = [daemon.client("daemon", { inFlightMax: 5 }), newBoard()];
    await client.mutation(api.rows.add, { board, key: "k", rank: 0 });
    const texts = Array.from({ length: 50 }, (_, number) => `${number};`);
    const done = await Promise.all(
      texts.map((text) => client.mutation(api.rows.append, { board, key: "k", text })),
    );
    expect(done.at(-1)).toBe(texts.join(""));
  });
});

describe("streams", () => {
  async function all<T>(pieces: AsyncIterable<T>): Promise<T[]> {
    const found: T[] = [];
    for await (const piece of pieces) {
      found.push(piece);
    }
    return found;
  }

  test("all pieces come in order, over one connection with others", async () => {
    const client = daemon.client();
    const streams = [0, 1, 20, 100].map((count) =>
      all(client.stream(api.acts.words, { board: newBoard(), count })),
    );
    const found = await Promise.all(streams);
    expect(found.map((words) => words.length)).toEqual([0, 1, 20, 100]);
    expect(found[3]?.at(-1)).toBe("word 99");
  });

  test("an error comes behind the pieces before it", async () => {
    const client = daemon.client();
    const found: number[] = [];
    const broken = async () => {
      for await (const piece of client.stream(api.acts.breaks, { after: 2 })) {
        found.push(piece);
      }
    };
    await expect(broken()).rejects.toMatchObject({ code: "application_error", data: { after: 2 } });
    expect(found).toEqual([0, 1]);
  });

  test("leaving the loop cancels the action", async () => {
    const [client, board] = [daemon.client(), newBoard()];
    for await (const word of client.stream(api.acts.words, { board, count: 1_000, pause_s: 0.02 })) {
      if (word === "word 1") {
        break;
      }
    }
    await until(
      (callback) => client.onConnectionState(callback),
      () => client.connectionState().inflightActions === 0 || undefined,
    );
    let [before, rows] = [-1, 0];
    while (before !== rows) {
      before = rows; // what was under way when it was cancelled may still be written
      await new Promise((resolve) => setTimeout(resolve, 200));
      rows = (await client.query(api.rows.count, { board })).rows;
    }
    expect(rows).toBeLessThan(100);
  });

  test("one that is left while it waits for room is never begun", async () => {
    const sent: Uint8Array[] = [];
    class Listened extends WebSocket {
      override send(data: Uint8Array): void {
        sent.push(data);
        super.send(data);
      }
    }
    const client = daemon.client("daemon", { inFlightMax: 1, webSocket: Listened });
    const [slow, board] = [client.action(api.acts.slow, { seconds: 0.3 }), newBoard()];
    const stream = client.stream(api.acts.words, { board, count: 1 });
    const next = stream.next();
    await stream.return();
    expect(await next).toEqual({ done: true, value: undefined });
    await slow;
    await client.action(api.acts.slow, { seconds: 0 });
    expect(sent.filter((frame) => Buffer.from(frame).includes("acts:words"))).toEqual([]);
  });

  test("a stream that nobody begins asks for nothing", async () => {
    const client = daemon.client();
    const stream = client.stream(api.acts.words, { board: newBoard(), count: 1 });
    await stream.return();
    expect(await stream.next()).toEqual({ done: true, value: undefined });
    expect(client.connectionState().inflightActions).toBe(0);
  });
});

describe("live queries", () => {
  test("followers of one query share a subscription, and one that returns at once costs nothing", async () => {
    const [client, board] = [daemon.client(), newBoard()];
    const [one, other] = [client.watch(api.rows.listed, { board }), client.watch(api.rows.listed, { board })];
    const [first, second] = [one.onUpdate(() => {}), other.onUpdate(() => {})];
    await shows(one);
    expect(other.localResult()).toBe(one.localResult());
    first();
    expect(other.localResult()).toStrictEqual([]);
    second();
    const third = one.onUpdate(() => {});
    await client.mutation(api.rows.add, { board, key: "k", rank: 1 });
    expect(one.localResult()).toHaveLength(1);
    third();
  });

  test("who has left is not called any more, not even in the round in which somebody else took it away", async () => {
    const [client, board] = [daemon.client(), newBoard()];
    const watch = client.watch(api.rows.listed, { board });
    const pages = client.paginate(api.rows.ranked, { board }, { initialNumItems: 3 });
    await client.mutation(api.rows.add, { board, key: "k", rank: 1 });
    for (const follow of [
      watch.onUpdate,
      pages.onUpdate,
      (call: () => void) => client.onConnectionState(call),
    ]) {
      let calls = 0;
      let second = (): void => {};
      const first = follow(() => second());
      second = follow(() => calls++);
      await client.mutation(api.rows.append, { board, key: "k", text: "." });
      first();
      expect(calls).toBe(0);
    }
  });

  test("rows that did not change are the same objects", async () => {
    const [client, board] = [daemon.client(), newBoard()];
    await client.mutation(api.rows.fill, { board, first: 0, number: 100 });
    const watch = client.watch(api.rows.listed, { board });
    const unfollow = watch.onUpdate(() => {});
    const before = await shows(watch);
    await daemon.do("call", "mutation", "rows:note", { board, key: "k50", text: "changed" });
    await daemon.do("call", "mutation", "rows:add", { board, key: "first", rank: -1 });
    const after = await shows(watch, (rows) => rows.length === 101 && rows[51]?.note === "changed");
    expect(
      after
        .slice(1)
        .filter((row, place) => row !== before[place])
        .map(({ key }) => key),
    ).toStrictEqual(["k50"]);
    unfollow();
  });

  test("whoever is told finds all queries at one moment", async () => {
    const [client, board] = [daemon.client(), newBoard()];
    const rows = client.watch(api.rows.listed, { board });
    const count = client.watch(api.rows.count, { board });
    const torn: unknown[] = [];
    const look = () => {
      const [one, other] = [rows.localResult()?.length, count.localResult()?.rows];
      if (one !== other) {
        torn.push([one, other]);
      }
    };
    const [first, second] = [rows.onUpdate(look), count.onUpdate(look)];
    for (let rank = 0; rank < 20; rank++) {
      await daemon.do("call", "mutation", "rows:add", { board, key: `k${rank}`, rank });
    }
    await shows(count, (shown) => shown.rows === 20);
    first();
    second();
    expect(torn).toStrictEqual([]);
  });
});

function notes(rows: readonly Row[] = []): string {
  return rows.map(({ note }) => note).join();
}

describe("optimistic updates", () => {
  test("a change shows at once, once, and keeps its row when it is confirmed", async () => {
    const [client, board] = [daemon.client(), newBoard()];
    await client.mutation(api.rows.fill, { board, first: 0, number: 3 });
    const watch = client.watch(api.rows.listed, { board });
    const seen: string[] = [];
    const unfollow = watch.onUpdate(() => seen.push(notes(watch.localResult())));
    const before = await shows(watch);
    seen.length = 0;
    const done = client.mutation(
      api.rows.note,
      { board, key: "k1", text: "mine" },
      {
        optimisticUpdate(store, { key, text }) {
          const rows = store.getQuery(api.rows.listed, { board });
          expect(store.getAllQueries(api.rows.listed)).toStrictEqual([{ args: { board }, value: rows }]);
          store.setQuery(
            api.rows.listed,
            { board },
            (rows ?? []).map((row) => (row.key === key ? { ...row, note: text } : row)),
          );
        },
      },
    );
    const shown = watch.localResult();
    expect(notes(shown)).toBe(",mine,");
    expect(shown?.[0]).toBe(before[0]);
    await done;
    expect(watch.localResult()).toBe(shown);
    expect(seen).toStrictEqual([",mine,"]);
    await client.mutation(api.rows.note, { board, key: "k2", text: "next" });
    expect(watch.localResult()?.[1]).toBe(shown?.[1]);
    unfollow();
  });

  test("a change that is refused is taken back", async () => {
    const [client, board] = [daemon.client(), newBoard()];
    const watch = client.watch(api.rows.count, { board });
    const unfollow = watch.onUpdate(() => {});
    const before = await shows(watch);
    const refused = client.mutation(
      api.rows.refuse,
      { board },
      { optimisticUpdate: (store) => store.setQuery(api.rows.count, { board }, { rows: 99 }) },
    );
    expect(watch.localResult()).toStrictEqual({ rows: 99 });
    await expect(refused).rejects.toThrow(ApplicationError);
    expect(watch.localResult()).toStrictEqual(before);
    unfollow();
  });

  test("an update that throws, or that changes a result in place, sends nothing", async () => {
    const [client, board] = [daemon.client(), newBoard()];
    const watch = client.watch(api.rows.listed, { board });
    const unfollow = watch.onUpdate(() => {});
    await shows(watch);
    const call = client.mutation(
      api.rows.add,
      { board, key: "k", rank: 1 },
      { optimisticUpdate: (store) => store.getQuery(api.rows.listed, { board })?.push({} as Row) },
    );
    await expect(call).rejects.toThrow(TypeError);
    expect(await client.query(api.rows.listed, { board })).toStrictEqual([]);
    unfollow();
  });
});

describe("connections", () => {
  test("nothing connects before the first use; the state says how the client stands", async () => {
    const client = daemon.client();
    expect(client.connectionState()).toMatchObject({
      phase: "connecting",
      connectionCount: 0,
      lastProblem: null,
    });
    const states: string[] = [];
    const unfollow = client.onConnectionState(({ phase, inflightQueries }) =>
      states.push(`${phase} ${inflightQueries}`),
    );
    await client.query(api.rows.listed, { board: "" });
    expect(states).toStrictEqual(["connecting 1", "open 1", "open 0"]);
    expect(client.connectionState()).toBe(client.connectionState());
    expect(client.connectionState()).toMatchObject({ isWebSocketConnected: true, hasEverConnected: true });
    unfollow();
    await client.close();
    expect(client.connectionState().phase).toBe("closed");
    await client.close();
  });

  test("a client that is closed ends what waits, and takes no calls", async () => {
    const client = new HeadwaterClient("ws://127.0.0.1:1", { log: () => {} });
    const waiting = client.query(api.rows.listed, { board: "" });
    const undecided = client.mutation(api.rows.add, { board: "", key: "", rank: 0 });
    const ends = [
      expect(waiting).rejects.toMatchObject({ code: "unavailable" }),
      expect(undecided).rejects.toMatchObject({ code: "connection_lost" }),
    ];
    await client.close();
    await Promise.all(ends);
    await expect(client.query(api.rows.listed, { board: "" })).rejects.toMatchObject({ code: "unavailable" });
  });

  test("a server that wants no other connection ends all that waits, and what is followed fails", async () => {
    const sockets: HandSocket[] = [];
    class Refusing extends HandSocket {
      constructor() {
        super();
        sockets.push(this);
      }
    }
    const client = new HeadwaterClient("ws://test", { webSocket: Refusing, log: () => {} });
    const watch = client.watch(api.rows.listed, { board: "" });
    let told = 0;
    watch.onUpdate(() => told++);
    const ends = [
      expect(client.query(api.rows.listed, { board: "" })).rejects.toMatchObject({ code: "unauthenticated" }),
      expect(client.mutation(api.rows.refuse, { board: "" })).rejects.toMatchObject({
        code: "connection_lost",
      }),
    ];
    sockets[0]?.onopen?.(null);
    sockets[0]?.receive(frameOf([38, ["unauthenticated", "who are you?", null]]));
    await Promise.all(ends);
    expect([told, sockets.length, client.connectionState().phase]).toStrictEqual([1, 1, "closed"]);
    expect(() => watch.localResult()).toThrow("who are you?");
  });

  test("the WebSocket of `ws` can be handed over", async () => {
    const client = new HeadwaterClient(daemon.addresses.daemon, { webSocket: WebSocket });
    expect(await client.query(api.rows.listed, { board: "" })).toStrictEqual([]);
    await client.close();
  });

  test.each(["", "localhost", "ftp://host", "ws://"])("%j is no address", (address) => {
    expect(() => new HeadwaterClient(address)).toThrow("is no address");
  });

  test.each([0, -1, Number.NaN])(
    "a bound of %d calls, under which none is ever made, is refused",
    (inFlightMax) => {
      expect(() => new HeadwaterClient("ws://localhost", { inFlightMax })).toThrow(
        "inFlightMax of 1 or more",
      );
    },
  );

  test("an `onChange` that throws keeps nobody from asking", async () => {
    const logged: unknown[] = [];
    const client = daemon.client("daemon", { log: (...what) => logged.push(what) });
    const error = new Error("not ours");
    client.setAuth(
      async () => null,
      () => {
        throw error;
      },
    );
    expect(await client.query(api.rows.listed, { board: "" })).toStrictEqual([]);
    expect(logged).toStrictEqual([["a listener failed", error]]);
  });

  test("a daemon without sign-in refuses tokens: fresh ones are fetched, then the client goes on as nobody", async () => {
    const client = daemon.client();
    const asked: boolean[] = [];
    const told: boolean[] = [];
    client.setAuth(
      async ({ forceRefresh }) => {
        asked.push(forceRefresh);
        return "no token";
      },
      (authenticated) => told.push(authenticated),
    );
    await until(
      (again) => {
        const timer = setInterval(again, 10);
        return () => clearInterval(timer);
      },
      () => told.length > 0,
    );
    expect([asked, told]).toStrictEqual([[false, true, true], [false]]);
    client.clearAuth();
    expect(await client.query(api.rows.listed, { board: "" })).toStrictEqual([]);
  });
});
