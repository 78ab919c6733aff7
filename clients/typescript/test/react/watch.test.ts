import { expect, test } from "vitest";
import { type Follow, lingering } from "../../src/react/watch.js";

/** Something to follow, and how many do. */
function followed() {
  const callbacks = new Set<() => void>();
  const log: number[] = [];
  const follow: Follow = (callback) => {
    const own = () => callback();
    callbacks.add(own);
    log.push(callbacks.size);
    return () => {
      callbacks.delete(own);
      log.push(callbacks.size);
    };
  };
  const tell = () => {
    for (const callback of [...callbacks]) {
      callback();
    }
  };
  return { follow, log, tell };
}

/** As one component takes another's place: the first leaves, then the second comes, in one turn. */
async function replacing(take: (follow: Follow) => Follow): Promise<readonly number[]> {
  const { follow, log } = followed();
  const leave = take(follow)(() => {});
  leave();
  take(follow)(() => {});
  await Promise.resolve();
  return log;
}

test("who comes in the turn in which another leaves finds what that one had", async () => {
  expect(await replacing(lingering)).toEqual([1, 2, 1]);
  expect(await replacing((follow) => follow), "without lingering, it ends in between").toEqual([1, 0, 1]);
});

test("who has left is not called, also in the turn of leaving", async () => {
  const { follow, log, tell } = followed();
  let calls = 0;
  const leave = lingering(follow)(() => {
    calls += 1;
  });
  tell();
  leave();
  tell();
  await Promise.resolve();
  tell();
  expect(calls).toBe(1);
  expect(log).toEqual([1, 0]);
});
