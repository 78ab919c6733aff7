/** What a client takes from the place it runs in: clock, chance, timers, sockets. */

import { HeadwaterError } from "./errors.js";

const DELAY_MAX_MS = 2 ** 31 - 1; // a timer takes what is longer for no time at all

/** A function that may be handed one with narrower parameters: runtimes describe their events each in their way. */
type Handler<Event> = { bivariant(event: Event): void }["bivariant"] | null;

/** What is used of a WebSocket: that of browsers, of Node.js 22 and later, of the package `ws`. */
export interface Socket {
  binaryType: string;
  onopen: Handler<unknown>;
  onmessage: Handler<{ readonly data: unknown }>;
  onclose: Handler<{ readonly code: number; readonly reason: string }>;
  onerror: Handler<unknown>;
  send(data: Uint8Array<ArrayBuffer>): void;
  close(): void;
}

/** Makes WebSockets. */
export type SocketConstructor = new (address: string) => Socket;

export interface Environment {
  /** Monotonic. */
  nowMs(): number;
  wallMs(): number;
  /** Uniform in [0, 1). */
  chance(): number;
  randomBytes(count: number): Uint8Array;
  /** Call once, later, in 24 days at most; return what calls it off. */
  later(delayMs: number, call: () => void): () => void;
  /** Call whenever the network is there again, where that is told; return what ends it. */
  whenOnline(call: () => void): () => void;
  openSocket(address: string): Socket;
  /** Tell the developer what no caller is told. */
  log(message: string, error: unknown): void;
}

/** Return what the runtime offers, but for what is handed over: a WebSocket where it has none of its own. */
export function runtimeEnvironment({
  webSocket: Constructor = globalThis.WebSocket,
  // biome-ignore lint/suspicious/noConsole: the console is where a developer looks
  log = (message, error) => console.error(`headwater: ${message}`, error),
}: {
  readonly webSocket?: SocketConstructor;
  readonly log?: Environment["log"];
}): Environment {
  return {
    log,
    nowMs: () => performance.now(),
    wallMs: () => Date.now(),
    chance: () => Math.random(),
    randomBytes: (count) => crypto.getRandomValues(new Uint8Array(count)),
    later(delayMs, call) {
      const timer = setTimeout(call, Math.min(delayMs, DELAY_MAX_MS));
      return () => clearTimeout(timer);
    },
    whenOnline(call) {
      globalThis.addEventListener?.("online", call);
      return () => globalThis.removeEventListener?.("online", call);
    },
    openSocket(address) {
      if (!Constructor) {
        throw new HeadwaterError("invalid_request", "no WebSocket: hand one over as the option webSocket");
      }
      return new Constructor(address);
    },
  };
}
