/** When a connection must say something, and when its peer is to be given up. Pure: times are handed in. */

import { SILENCE_FACTOR } from "./limits.js";

/** Watches one connection. Its owner sets the two flags at each message and ticks at least four times an interval. */
export class Heartbeat {
  /** Each side sends something at least this often. */
  readonly heartbeatMs: number;
  /** Set by the owner at each message from the peer, cleared by `tick`. */
  heard = true;
  /** Set by the owner at each message to the peer, cleared by `tick`. */
  spoke = true;
  #heardAtMs = 0;
  #spokeAtMs = 0;

  constructor(heartbeatMs: number) {
    this.heartbeatMs = heartbeatMs;
  }

  /** Return what is due at a monotonic time. */
  tick(nowMs: number): "ping" | "lost" | undefined {
    if (this.heard) {
      this.heard = false;
      this.#heardAtMs = nowMs;
    }
    if (this.spoke) {
      this.spoke = false;
      this.#spokeAtMs = nowMs;
    }
    if (nowMs - this.#heardAtMs >= SILENCE_FACTOR * this.heartbeatMs) {
      return "lost";
    }
    return nowMs - this.#spokeAtMs >= this.heartbeatMs / 2 ? "ping" : undefined;
  }
}
