/** What the recorded histories do not come to: limits, another session name, tokens. */

import { beforeEach, describe, expect, test } from "vitest";
import type { ClientEvent } from "../src/events.js";
import { ClientSession } from "../src/session.js";
import { decodeValue, encodeValue } from "../src/values.js";
import { frameOf } from "./support/frames.js";

const NOTHING = encodeValue({});
const SMALL = 65_536;
let session: ClientSession;

beforeEach(() => {
  session = new ClientSession(new Uint8Array(16), "test");
});

function opened(frameLimitBytes = 1 << 20): ClientEvent[] {
  session.connect();
  return session.receive(frameOf([33, 1, new Uint8Array(16), 1, frameLimitBytes, 4_000]));
}

/** Return what is sent: of each message its name and what tells it from others. */
function sent(): string[] {
  return session.takeFrames().map((frame) => {
    const [tag, first, second, third] = decodeValue(frame) as [number, number, unknown, unknown];
    switch (tag) {
      case 1:
        return `Connect ${(second as Uint8Array)[0]}`;
      case 2:
        return `ModifyQuerySet ${first} ${second} [${(third as [number][]).map(([number]) => number)}]`;
      case 5:
        return `Authenticate ${first} ${second}`;
      default:
        return `Request ${first}`;
    }
  });
}

function transition(start: number[], end: number[]): Uint8Array {
  return frameOf([34, start, end, []]);
}

describe("limits", () => {
  test("more than 4,096 queries are refused, and more than 1,024 requests", () => {
    for (let count = 0; count < 4_096; count++) {
      session.subscribe("a:b", NOTHING);
    }
    expect(() => session.subscribe("a:b", NOTHING)).toThrow(expect.objectContaining({ code: "overloaded" }));
    for (let count = 0; count < 1_024; count++) {
      session.mutate("a:b", NOTHING);
    }
    expect(() => session.act("a:b", NOTHING)).toThrow(expect.objectContaining({ code: "overloaded" }));
  });

  test("what the server would not take is refused at the call", () => {
    opened(SMALL);
    const large = encodeValue({ text: "x".repeat(SMALL) });
    const refusal = expect.objectContaining({ code: "frame_too_large" });
    expect(() => session.subscribe("a:b", large)).toThrow(refusal);
    expect(() => session.mutate("a:b", large)).toThrow(refusal);
    expect(session.inFlight).toBe(0);
  });

  test("what a server takes no more after a reconnect fails then", () => {
    const large = encodeValue({ text: "x".repeat(SMALL) });
    const [query, request] = [session.subscribe("a:b", large), session.mutate("a:b", large)];
    const events = opened(SMALL);
    const failed = { error: expect.objectContaining({ code: "frame_too_large" }) };
    expect(events.slice(1)).toStrictEqual([
      { type: "QueryChanged", query, outcome: failed },
      { type: "Resolved", request, outcome: failed },
    ]);
  });

  test("a query set that no frame holds travels in several", () => {
    const half = encodeValue({ text: "x".repeat(40_000) });
    session.subscribe("a:b", half);
    session.subscribe("a:c", half);
    opened(SMALL);
    expect(sent()).toStrictEqual(["Connect 0", "ModifyQuerySet 0 1 [1]", "ModifyQuerySet 1 2 [2]"]);
    session.receive(transition([0, 0, 0], [1, 0, 1]));
    expect(session.settled).toBe(false);
    session.receive(transition([1, 0, 1], [2, 0, 1]));
    expect(session.settled).toBe(true);
  });
});

describe("streams", () => {
  /** A connection to a server that streams, and an action on it that was asked for with a window. */
  function streaming(streamWindow: number): number {
    session.connect();
    session.receive(frameOf([33, 1, new Uint8Array(16), 1, 1 << 20, 4_000, streamWindow]));
    const request = session.act("a:b", NOTHING, 1_000);
    session.takeFrames();
    return request;
  }
  const frames = () => session.takeFrames().map((frame) => decodeValue(frame));
  const piece = encodeValue("word");

  test("pieces come before the end, and are credited when they are taken", () => {
    const request = streaming(1_000);
    const size = piece.length;
    expect(session.receive(frameOf([39, request, piece]))).toStrictEqual([
      { type: "PieceArrived", request, value: "word", size },
    ]);
    expect(frames()).toStrictEqual([]);
    session.take(request, size);
    expect(frames()).toStrictEqual([[8, request, size]]);
    const [end] = session.receive(frameOf([36, request, encodeValue(null), null]));
    expect(end).toMatchObject({ type: "Resolved", request, outcome: { value: null } });
    session.take(request, 1);
    expect(frames()).toStrictEqual([]);
  });

  test("one that is left is cancelled where the server knows that, and its pieces are dropped", () => {
    const request = streaming(1_000);
    session.leave(request);
    expect(frames()).toStrictEqual([[9, request]]);
    expect(session.receive(frameOf([39, request, piece]))).toStrictEqual([]);
    session.disconnected();
    const other = streaming(0);
    session.leave(other);
    expect(frames()).toStrictEqual([]);
  });

  test("one that was never sent ends at once when it is left", () => {
    const request = session.act("a:b", NOTHING, 1_000);
    session.leave(request);
    expect(session.takeEvents()).toMatchObject([{ type: "Resolved", request }]);
    opened();
    expect(sent()).toStrictEqual(["Connect 0", "ModifyQuerySet 0 1 []"]);
  });

  test("a piece that nobody asked for breaks the protocol", () => {
    streaming(1_000);
    const plain = session.act("a:b", NOTHING);
    for (const request of [plain, plain + 1]) {
      expect(() => session.receive(frameOf([39, request, piece]))).toThrow(
        `unexpected ActionPiece for request ${request}`,
      );
    }
  });
});

test("under another name mutations that were sent are in doubt, and others go on", () => {
  opened();
  const [doubtful, action] = [session.mutate("a:b", NOTHING), session.act("a:b", NOTHING)];
  const lost = session.disconnected();
  expect(lost).toMatchObject([{ request: action, outcome: { error: { code: "connection_lost" } } }]);
  const unsent = session.mutate("a:c", NOTHING);
  expect(session.renew(new Uint8Array(16).fill(1))).toMatchObject([
    { type: "Resolved", request: doubtful, outcome: { error: { code: "outcome_unknown" } } },
  ]);
  opened();
  expect(sent()).toStrictEqual(["Connect 1", "ModifyQuerySet 0 1 []", `Request ${unsent}`]);
});

describe("tokens", () => {
  test("the last one is asked for before anything else, on each connection", () => {
    session.authenticate("first");
    session.authenticate("second");
    session.mutate("a:b", NOTHING);
    opened();
    const resume = ["Connect 0", "Authenticate 0 second", "ModifyQuerySet 0 1 []"];
    expect(sent()).toStrictEqual(resume);
    expect(session.receive(transition([0, 0, 0], [1, 1, 1]))[0]).toStrictEqual({ type: "IdentityChanged" });
    expect(sent()).toStrictEqual(["Request 1"]);
    session.disconnected();
    opened();
    expect(sent()).toStrictEqual(resume);
    session.receive(transition([0, 0, 0], [1, 1, 1]));
    expect(sent()).toStrictEqual(["Request 1"]);
  });

  test("calls are those of the user under whom they were made, and of nobody else", () => {
    session.mutate("a:nobody", NOTHING);
    session.authenticate("ada");
    session.mutate("a:ada", NOTHING);
    session.authenticate("fresh", true);
    session.authenticate("bob");
    session.mutate("a:bob", NOTHING);
    expect(session.takeEvents()).toMatchObject([
      { type: "Resolved", request: 2, outcome: { error: { code: "unauthenticated" } } },
    ]);
    opened();
    const resume = ["Authenticate 0 bob", "ModifyQuerySet 0 1 []"];
    expect(sent()).toStrictEqual(["Connect 0", "Request 1", ...resume]);
    session.receive(transition([0, 0, 0], [1, 1, 1]));
    expect(sent()).toStrictEqual(["Request 3"]);
    session.disconnected();
    session.authenticate(null);
    expect(session.takeEvents()).toMatchObject([
      { type: "Resolved", request: 3, outcome: { error: { code: "outcome_unknown" } } },
    ]);
  });

  test("once the token that held does so no more, calls wait for another of the same user", () => {
    session.authenticate("ada");
    opened();
    session.receive(transition([0, 0, 0], [1, 1, 1]));
    session.takeFrames();
    expect(session.receive(frameOf([37, 0, "it has run out"]))).toStrictEqual([
      { type: "IdentityLost", message: "it has run out" },
    ]);
    session.mutate("a:b", NOTHING);
    expect(sent()).toStrictEqual([]);
    session.authenticate("fresh", true);
    expect(sent()).toStrictEqual(["Authenticate 1 fresh"]);
    session.receive(transition([1, 1, 1], [1, 2, 1]));
    expect(sent()).toStrictEqual(["Request 1"]);
  });

  test("one that is refused is not asked for again", () => {
    opened();
    session.authenticate("bad");
    session.takeFrames();
    expect(session.receive(frameOf([37, 0, "no such token"]))).toStrictEqual([
      { type: "AuthenticationFailed", message: "no such token" },
    ]);
    session.disconnected();
    opened();
    expect(sent()).toStrictEqual(["Connect 0", "ModifyQuerySet 0 1 []"]);
  });

  test("of those that wait for a verdict when a connection ends, the last counts", () => {
    opened();
    session.authenticate("one");
    session.authenticate(null);
    session.disconnected();
    opened();
    expect(sent()).toStrictEqual(["Connect 0", "Authenticate 0 null", "ModifyQuerySet 0 1 []"]);
  });

  test("verdicts that nobody waits for break the protocol", () => {
    opened();
    const broken = expect.objectContaining({ code: "protocol_error" });
    expect(() => session.receive(frameOf([37, 0, ""]))).toThrow(broken);
    expect(() => session.receive(transition([0, 0, 0], [0, 1, 1]))).toThrow(broken);
  });
});
