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
  if (start.querySet !== version.querySet || start.identity !== version.identity || start.ts !== version.ts) {
    throw new ProtocolError("Transition.start: expected where the last one ended");
  }
  if (end.ts < Math.max(start.ts, lastTs)) {
    throw new ProtocolError(`Transition.end: expected ts ${lastTs} or later, got ${end.ts}`);
  }
  for (const part of ["querySet", "identity"] as const) {
    if (end[part] < start[part] || end[part] > sent[part]) {
      throw new ProtocolError(`Transition.end: ${part} ${end[part]} was never sent`);
    }
  }
}
