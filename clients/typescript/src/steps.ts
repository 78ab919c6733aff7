/** Which transitions may follow where a session stands. Pure. */

import { ProtocolError } from "./errors.js";
import type { Version } from "./messages.js";

/**
 * Throw `ProtocolError` unless a transition may lead from `start` to `end`.
 *
 * The session stands at `version`, has shown `lastTs` on any connection, and `sent` so much on this one.
 */
export function checkStep(
  start: Version,
  end: Version,
  version: Version,
  lastTs: number,
  sent: Omit<Version, "ts">,
): void {
  const latest = { ...sent, ts: Infinity };
  const earliest = { ...start, ts: Math.max(start.ts, lastTs) };
  for (const part of ["querySet", "identity", "ts"] as const) {
    if (start[part] !== version[part]) {
      throw new ProtocolError(`unexpected start ${part} ${start[part]}`);
    }
    if (end[part] < earliest[part] || end[part] > latest[part]) {
      throw new ProtocolError(`unexpected end ${part} ${end[part]}`);
    }
  }
}
