/**
 * The client on connections that fail: mutations take effect once, and what it shows is soon the newest state.
 *
 * `HEADWATER_LONG=1` lets every illness of a connection be met, and `HEADWATER_APPENDS` says how many mutations
 * are sent over connections that are cut.
 */

import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from "vitest";
import type { HeadwaterClient } from "../src/index.js";
import { ClientSession } from "../src/session.js";
import { api } from "./support/bundle.js";
import { Daemon } from "./support/daemon.js";
import { shows, until } from "./support/waiting.js";

const LONG = process.env.HEADWATER_LONG === "1";
const APPENDS = Number(process.env.HEADWATER_APPENDS ?? 60);

let daemon: Daemon;
let boards = 0;

beforeAll(async () => {
  daemon = await Daemon.start("web", "--heartbeat-s", "1");
});

afterAll(async () => {
  await daemon.end();
});

afterEach(() => {
  vi.restoreAllMocks();
});

function newBoard(): string {
  return `board ${++boards}`;
}

/** A client that shows a board with one row. */
async function showing(way: "daemon" | "ill" | "cut", board: string) {
  const client = daemon.client(way);
  const watch = client.watch(api.rows.listed, { board });
  watch.onUpdate(() => {});
  await client.mutation(api.rows.add, { board, key: "k", rank: 0 });
  return { client, watch };
}

/** Append to the row of a board, shown at once. */
function append(client: HeadwaterClient, board: string, text: string): Promise<string> {
  return client.mutation(
    api.rows.append,
    { board, key: "k", text },
    {
      optimisticUpdate(store) {
        const rows = store.getQuery(api.rows.listed, { board }) ?? [];
        store.setQuery(
          api.rows.listed,
          { board },
          rows.map((row) => ({ ...row, note: row.note + text })),
        );
      },
    },
  );
}

function open(client: HeadwaterClient): Promise<boolean> {
  return until(
    (again) => client.onConnectionState(again),
    () => client.connectionState().phase === "open",
  );
}

describe("a daemon that goes away and comes back", () => {
  test.each(LONG ? (["kill", "stop"] as const) : (["kill"] as const))("%s", async (end) => {
    const board = newBoard();
    const { client, watch } = await showing("daemon", board);
    await daemon.do(end);
    await until(
      (again) => client.onConnectionState(again),
      () => client.connectionState().phase === "reconnecting",
    );
    const made = append(client, board, "while it is away;");
    expect(watch.localResult()?.[0]?.note).toBe("while it is away;");
    await daemon.do("start");
    expect(await made).toBe("while it is away;");
    await daemon.do("call", "mutation", "rows:append", { board, key: "k", text: "behind it" });
    await shows(watch, ([row]) => row?.note === "while it is away;behind it");
    expect(client.connectionState()).toMatchObject({ phase: "open", connectionCount: 2 });
  });

  test("one that stands still is given up, and heard when it goes on", async () => {
    const board = newBoard();
    const { client, watch } = await showing("daemon", board);
    await daemon.do("pause");
    const made = append(client, board, "into silence;");
    await until(
      (again) => client.onConnectionState(again),
      () => client.connectionState().phase === "reconnecting",
    );
    expect(client.connectionState().lastProblem).toBe("the server has gone silent");
    await daemon.do("resume");
    expect(await made).toBe("into silence;");
    expect(watch.localResult()?.[0]?.note).toBe("into silence;");
  });
});

describe("a connection that falls ill", () => {
  const illnesses = ["RESET", "HALF_OPEN", "ENDED", "STALLED", "DEAF", "MUTE", "TRICKLING"];

  test.each(LONG ? illnesses : illnesses.slice(0, 2))("%s", async (illness) => {
    const board = newBoard();
    const { client, watch } = await showing("ill", board);
    await daemon.do("ill", illness);
    await daemon.do("call", "mutation", "rows:append", { board, key: "k", text: "of others;" });
    const mine = await append(client, board, "mine;");
    await shows(watch, ([row]) => row?.note === mine);
    expect([...mine.split(";")].sort()).toStrictEqual(["", "mine", "of others"]);
    await open(client);
  });
});

describe("connections that are cut before, in and behind mutations and their answers", () => {
  /** Append, a few at a time, and return what the answers and the row say in the end. */
  async function appended(): Promise<{ answers: string[]; note: string; flickers: string[] }> {
    const board = newBoard();
    const { client, watch } = await showing("cut", board);
    const flickers: string[] = [];
    let last = "";
    watch.onUpdate(() => {
      const note = watch.localResult()?.[0]?.note ?? "";
      if (!note.startsWith(last)) {
        flickers.push(`${last} → ${note}`);
      }
      last = note;
    });
    const answers: string[] = [];
    for (let number = 0; number < APPENDS; number += 4) {
      const texts = [0, 1, 2, 3].map((place) => `${number + place};`);
      answers.push(...(await Promise.all(texts.map((text) => append(client, board, text)))));
    }
    const [row] = await daemon.client().query(api.rows.listed, { board });
    return { answers, note: row?.note ?? "", flickers };
  }

  test("each mutation takes effect once, in its order, shown without a flicker", async () => {
    const { answers, note, flickers } = await appended();
    const texts = Array.from({ length: APPENDS }, (_, number) => `${number};`);
    expect(note).toBe(texts.join(""));
    expect(answers).toStrictEqual(texts.map((_, number) => texts.slice(0, number + 1).join("")));
    expect(flickers).toStrictEqual([]);
    const cuts = Object.values((await daemon.do("whole")) as Record<string, number>);
    expect(cuts.reduce((sum, count) => sum + count, 0)).toBeGreaterThan(APPENDS / 12);
  });
});

test("a client that takes another name on each connection has mutations take effect twice", async () => {
  const { connect } = ClientSession.prototype;
  const draw = crypto.getRandomValues.bind(crypto);
  const names: Uint8Array<ArrayBuffer>[] = []; // as the sessions hold them
  vi.spyOn(crypto, "getRandomValues").mockImplementation((array) => {
    names.push(array as Uint8Array<ArrayBuffer>);
    return draw(array);
  });
  vi.spyOn(ClientSession.prototype, "connect").mockImplementation(function (this: ClientSession) {
    for (const name of names) {
      draw(name);
    }
    connect.call(this);
  });
  const board = newBoard();
  const { client } = await showing("ill", board);
  for (let number = 0; number < 20; number++) {
    const made = append(client, board, `${number};`);
    await Promise.race([made, daemon.do("ill", "DEAF").then(() => daemon.do("ill", "RESET"))]);
    await made;
  }
  const [row] = await daemon.client().query(api.rows.listed, { board });
  expect(row?.note.split(";").length).toBeGreaterThan(21);
});
