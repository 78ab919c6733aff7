import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { runtimeEnvironment } from "../src/environment.js";

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

test("a delay that a timer cannot hold, as a heartbeat of years, does not end at once", () => {
  const call = vi.fn();
  const callOff = runtimeEnvironment({}).later(2 ** 40, call);
  vi.advanceTimersByTime(60_000);
  expect(call).not.toHaveBeenCalled();
  callOff();
});
