/** Carries whole frames between a client and a server. Knows nothing of what they mean. */

import type { Environment } from "./environment.js";

const OPEN_TIMEOUT_MS = 10_000;
const CLOSE_TIMEOUT_MS = 1_000;
const NO_CLOSE_CODE = 1006;

/** One connection to a server. */
export interface Transport {
  /** Resolves when the socket has let go. */
  readonly gone: Promise<void>;
  /** Hand over one frame. It may be lost if the connection ends. */
  send(frame: Uint8Array): void;
  /** End the connection; nothing is told any more. */
  close(): void;
}

/**
 * Connect. After `ended` nothing is told; its `code` is the close code of the server, 1006 if there was none. Throws
 * what making a socket throws.
 */
export function openTransport(
  address: string,
  environment: Environment,
  opened: () => void,
  received: (frame: Uint8Array) => void,
  ended: (problem: string, code: number) => void,
): Transport {
  let over = false;
  let letGo = (): void => {};
  const gone = new Promise<void>((resolve) => {
    letGo = resolve;
  });
  const socket = environment.openSocket(address);
  socket.binaryType = "arraybuffer";

  const close = (): void => {
    over = true;
    forgetTimeout();
    socket.close();
    environment.later(CLOSE_TIMEOUT_MS, letGo);
  };
  const end = (problem: string, code = NO_CLOSE_CODE): void => {
    if (!over) {
      close();
      ended(problem, code);
    }
  };
  const forgetTimeout = environment.later(OPEN_TIMEOUT_MS, () => end("no answer within 10 s"));

  socket.onopen = () => {
    forgetTimeout();
    if (!over) {
      opened();
    }
  };
  socket.onmessage = ({ data }) => {
    if (typeof data === "string") {
      end("got a text frame");
    } else if (!over) {
      received(new Uint8Array(data as ArrayBuffer)); // maybe of another realm, as where jsdom is around
    }
  };
  socket.onerror = () => {
    // Most runtimes call `onclose` behind it, but that of Node.js 20 not always. An orderly end is no error.
    letGo();
    end("no connection");
  };
  socket.onclose = ({ code, reason }) => {
    letGo();
    end(code === NO_CLOSE_CODE ? "no connection" : `closed with code ${code} ${reason}`, code);
  };
  return { gone, close, send: (frame) => socket.send(frame as Uint8Array<ArrayBuffer>) };
}
