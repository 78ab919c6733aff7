/** How long a client waits before it connects again. Pure: chance is handed in. */

const FIRST_MS = 100;
const LIMIT_MS = 16_000;

/**
 * Return the pause before the next attempt: doubling, and spread over its second half, so that clients that
 * lost their server together do not come back together.
 */
export function backoffMs(attempt: number, chance: number): number {
  return Math.min(LIMIT_MS, FIRST_MS * 2 ** attempt) * (0.5 + chance / 2);
}
