/** Carries whole frames between a client and a server. Knows nothing of what they mean. */

import type { Environment, Socket } from "./environment.js";

const OPEN_TIMEOUT_MS = 10_000;
const CLOSE_TIMEOUT_MS = 1_000;

/** What a transport tells. After `ended` nothing follows. */
export interface TransportEvents {
  opened(): void;
  received(frame: Uint8Array): void;
  /** `code` is the close code of the server, 1006 if there was none. */
  ended(problem: string, code: number): void;
}

/** One connection to a server. */
export class Transport {
  /** Resolves when the socket has let go. */
  readonly gone: Promise<void>;
  readonly #socket: Socket;
  readonly #events: TransportEvents;
  readonly #environment: Environment;
  readonly #forgetTimeout: () => void;
  #over = false;
  #letGo = (): void => {};

  constructor(address: string, environment: Environment, events: TransportEvents) {
    this.#environment = environment;
    this.#events = events;
    this.gone = new Promise((resolve) => {
      this.#letGo = resolve;
    });
    const socket = environment.openSocket(address);
    this.#socket = socket;
    socket.binaryType = "arraybuffer";
    this.#forgetTimeout = environment.later(OPEN_TIMEOUT_MS, () => this.#end("no answer within 10 s", 1006));
    socket.onopen = () => {
      this.#forgetTimeout();
      if (!this.#over) {
        events.opened();
      }
    };
    socket.onmessage = ({ data }) => {
      if (this.#over) {
        return;
      }
      if (typeof data === "string") {
        this.#end("the server sent a text frame", 1006);
      } else {
        events.received(new Uint8Array(data as ArrayBuffer)); // maybe of another realm, as where jsdom is around
      }
    };
    socket.onerror = () => {
      // Most runtimes call `onclose` behind it, but that of Node.js 20 not always. An orderly end is no error.
      this.#letGo();
      this.#end("no connection", 1006);
    };
    socket.onclose = ({ code, reason }) => {
      this.#letGo();
      this.#end(
        code === 1006 ? "no connection" : `closed with code ${code}${reason && ` (${reason})`}`,
        code,
      );
    };
  }

  /** Hand over one frame. It may be lost if the connection ends. */
  send(frame: Uint8Array): void {
    this.#socket.send(frame as Uint8Array<ArrayBuffer>);
  }

  /** End the connection; nothing is told any more. */
  close(): void {
    this.#over = true;
    this.#forgetTimeout();
    this.#socket.close();
    this.#environment.later(CLOSE_TIMEOUT_MS, this.#letGo);
  }

  #end(problem: string, code: number): void {
    if (!this.#over) {
      this.close();
      this.#events.ended(problem, code);
    }
  }
}
