/**
 * The session repeats random histories of the Python one, with faults: every frame, every event and every value
 * that an optimistic update sees has to be the same. See tests/support/recorded_sessions.py for how they are made.
 */

import { afterEach, describe, expect, test, vi } from "vitest";
import { InFlight } from "../src/inFlight.js";
import { Query } from "../src/query.js";
import { QuerySet } from "../src/querySet.js";
import { Screen } from "../src/screen.js";
import { ClientSession } from "../src/session.js";
import { linesOf } from "./support/python.js";
import { type History, repeat } from "./support/replay.js";
import { fromHex } from "./support/vectors.js";

const FIRST = Number(process.env.HEADWATER_FIRST_SEED ?? 0);
const TIMES = Number(process.env.HEADWATER_HISTORIES ?? 1);
const COUNTS = { link: 10, updates: 2, world: 3 };
type Kind = keyof typeof COUNTS;

const KEPT = 4;
/** Histories that the session could repeat, for those that should not be able to. */
const kept: Record<Kind, History[]> = { link: [], updates: [], world: [] };

function repeated(history: History): void {
  repeat(history, new ClientSession(fromHex(history.session), history.client));
}

test.each(Object.entries(COUNTS))("histories of the kind %s", { timeout: 0 }, async (name, count) => {
  const kind = name as Kind;
  let calls = 0;
  for await (const history of linesOf<History>("support.recorded_sessions", kind, FIRST, TIMES * count)) {
    repeated(history);
    calls += history.calls.length;
    if (kept[kind].length < KEPT) {
      kept[kind].push(history);
    }
  }
  expect(calls).toBeGreaterThan(500);
});

describe("a session with a rule taken out is found", () => {
  afterEach(() => {
    vi.restoreAllMocks();
  });

  const { covered, updates } = InFlight.prototype;
  const { apply } = Query.prototype;
  const { add } = QuerySet.prototype;

  test.each<[string, Kind, () => void]>([
    [
      "an update is dropped with the answer, before the results show the change",
      "updates",
      () =>
        vi.spyOn(InFlight.prototype, "updates").mockImplementation(function (this: InFlight) {
          return updates.call(this).filter(([number]) => this.get(number)?.success === undefined);
        }),
    ],
    [
      "results are shown that may have the change of a mutation in doubt",
      "updates",
      () => vi.spyOn(InFlight.prototype, "inDoubt").mockReturnValue(false),
    ],
    [
      "undecided mutations are not sent again",
      "link",
      () => vi.spyOn(InFlight.prototype, "outstanding").mockReturnValue([]),
    ],
    [
      "a mutation resolves with its answer",
      "link",
      () =>
        vi.spyOn(InFlight.prototype, "covered").mockImplementation(function (this: InFlight) {
          return covered.call(this, Number.POSITIVE_INFINITY);
        }),
    ],
    [
      "all answers are told to be forgotten",
      "link",
      () => vi.spyOn(InFlight.prototype, "answeredBelow").mockImplementation(({ number }) => number),
    ],
    [
      "a digest is kept for a query that failed",
      "link",
      () =>
        vi.spyOn(Query.prototype, "apply").mockImplementation(function (this: Query, ...change) {
          const { digest } = this;
          apply.call(this, ...change);
          this.digest ??= digest;
        }),
    ],
    [
      "queries are resumed without what is held of them",
      "link",
      () =>
        vi.spyOn(QuerySet.prototype, "add").mockImplementation(function (this: QuerySet, number, query) {
          query.digest = null;
          add.call(this, number, query);
        }),
    ],
    [
      "what arrives is not shown",
      "link",
      () => vi.spyOn(Screen.prototype, "settle").mockImplementation(() => {}),
    ],
  ])("%s", (_, kind, take) => {
    take();
    expect(() => kept[kind].map(repeated)).toThrow();
  });
});
