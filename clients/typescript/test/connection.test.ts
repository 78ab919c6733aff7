/** The connection on virtual time: when it connects again, and when not. */

import { beforeEach, describe, expect, test } from "vitest";
import { Connection } from "../src/connection.js";
import type { HeadwaterError } from "../src/errors.js";
import { ClientSession } from "../src/session.js";
import { HandEnvironment } from "./support/environment.js";
import { frameOf } from "./support/frames.js";

const WELCOME = frameOf([33, 1, new Uint8Array(16), 1, 1 << 20, 4_000]);

let environment: HandEnvironment;
let session: ClientSession;
let connection: Connection;
let ends: HeadwaterError[];

beforeEach(() => {
  environment = new HandEnvironment();
  session = new ClientSession(new Uint8Array(16), "test");
  ends = [];
  connection = new Connection(
    "ws://test/sync",
    session,
    environment,
    () => {},
    () => {},
    (error) => ends.push(error),
  );
  connection.begin();
});

function welcome(): void {
  environment.socket.onopen?.(null);
  environment.socket.receive(WELCOME);
}

describe("after a lost connection", () => {
  test("pauses double up to 16 s, and begin anew once everything is back", () => {
    const pauses: number[] = [];
    for (let attempt = 0; attempt < 10; attempt++) {
      const began = environment.nowMs();
      const count = environment.sockets.length;
      environment.socket.onclose?.({ code: 1006, reason: "" });
      while (environment.sockets.length === count) {
        environment.pass(50);
      }
      pauses.push(environment.nowMs() - began);
    }
    expect(pauses).toStrictEqual([100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 16_000, 16_000]);
    expect(connection.attempt).toBe(10);
    welcome();
    expect(connection.attempt).toBe(10);
    environment.socket.receive(frameOf([34, [0, 0, 0], [1, 0, 1], []]));
    expect(connection.attempt).toBe(0);
  });

  test("the network that is there again ends the pause", () => {
    environment.socket.onclose?.({ code: 1006, reason: "" });
    environment.online();
    expect(environment.sockets).toHaveLength(2);
    environment.online();
    environment.pass(60);
    expect(environment.sockets).toHaveLength(2);
  });
});

describe("a connection is given up", () => {
  test("that does not open within 10 s", () => {
    environment.pass(10_000);
    expect([environment.sockets[0]?.closed, connection.problem]).toStrictEqual([
      true,
      "no answer within 10 s",
    ]);
  });

  test("whose server says nothing for three heartbeats, and pings are sent meanwhile", async () => {
    welcome();
    for (let second = 0; second < 13; second++) {
      environment.pass(1_000);
      await Promise.resolve(); // frames are sent behind the present step
    }
    expect(environment.socket.sent.length).toBeGreaterThan(5);
    environment.pass(300);
    expect(connection.problem).toBe("the server has gone silent");
  });

  test("on which comes what is no frame", () => {
    welcome();
    environment.socket.onmessage?.({ data: "text" });
    expect([connection.phase, connection.problem]).toStrictEqual(["reconnecting", "got a text frame"]);
  });

  test("whose server breaks the protocol: another one is made", () => {
    welcome();
    environment.socket.receive(frameOf([33]));
    expect(connection.phase).toBe("reconnecting");
    expect(connection.problem).toContain("broke the protocol");
  });
});

describe("another connection", () => {
  test.each([
    [1002, "protocol_error"],
    [1007, "protocol_error"],
    [1009, "frame_too_large"],
  ])("is not made after close code %d", (code, error) => {
    welcome();
    environment.socket.onclose?.({ code, reason: "" });
    expect(ends.map((end) => end.code)).toStrictEqual([error]);
    environment.pass(60_000);
    expect([environment.sockets.length, connection.phase]).toStrictEqual([1, "closed"]);
  });

  test.each([
    ["unsupported_version", false],
    ["unauthenticated", false],
    ["unavailable", true],
    ["something new", true],
  ])("after FatalError %s: %s", (code, again) => {
    environment.socket.onopen?.(null);
    environment.socket.receive(frameOf([38, [code, "because", null]]));
    environment.pass(1_000);
    expect(environment.sockets.length).toBe(again ? 2 : 1);
    expect(ends.length).toBe(again ? 0 : 1);
  });

  test("has another session name where somebody else uses the old one", () => {
    welcome();
    environment.socket.receive(frameOf([38, ["session_in_use", "", null]]));
    environment.pass(200);
    environment.socket.onopen?.(null);
    const [old, fresh] = environment.sockets.map(({ sent }) => Buffer.from(sent[0] ?? []).toString("hex"));
    expect(fresh).not.toBe(old);
  });

  test("is not open after it was closed by who is told that it opened", () => {
    const others: string[] = [];
    const other = new Connection(
      "ws://test/sync",
      new ClientSession(new Uint8Array(16), "test"),
      environment,
      (events) => {
        others.push(...events.map(({ type }) => type));
        if (events.length > 0) {
          void other.close();
        }
      },
      () => {},
      () => {},
    );
    other.begin();
    welcome();
    expect([others, other.phase]).toStrictEqual([["Opened"], "closed"]);
  });

  test("is not made once it is closed", async () => {
    environment.socket.onclose?.({ code: 1006, reason: "" });
    await connection.close();
    environment.pass(60_000);
    connection.begin();
    expect([environment.sockets.length, connection.phase]).toStrictEqual([1, "closed"]);
  });
});
