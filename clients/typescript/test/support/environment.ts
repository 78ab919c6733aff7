/** An environment in the hands of a test: its clock, its timers, sockets that do what they are told. */

import type { Environment, Socket } from "../../src/environment.js";

/** A socket of which the test is the other end. */
export class HandSocket implements Socket {
  binaryType = "";
  onopen: Socket["onopen"] = null;
  onmessage: Socket["onmessage"] = null;
  onclose: Socket["onclose"] = null;
  onerror: Socket["onerror"] = null;
  readonly sent: Uint8Array[] = [];
  closed = false;

  send(data: Uint8Array<ArrayBuffer>): void {
    this.sent.push(data);
  }

  close(): void {
    this.closed = true;
  }

  receive(frame: Uint8Array): void {
    this.onmessage?.({ data: frame.slice().buffer });
  }
}

/** Time stands until `pass` is called. */
export class HandEnvironment implements Environment {
  readonly sockets: HandSocket[] = [];
  readonly logged: string[] = [];
  online = (): void => {};
  private timeMs = 0;
  private timers: { atMs: number; call: () => void }[] = [];

  nowMs(): number {
    return this.timeMs;
  }

  wallMs(): number {
    return 1_800_000_000_000 + this.timeMs;
  }

  chance(): number {
    return 0.999;
  }

  randomBytes(count: number): Uint8Array {
    return new Uint8Array(count).fill(this.sockets.length);
  }

  later(delayMs: number, call: () => void): () => void {
    const timer = { atMs: this.timeMs + delayMs, call };
    this.timers.push(timer);
    return () => {
      this.timers = this.timers.filter((other) => other !== timer);
    };
  }

  whenOnline(call: () => void): () => void {
    this.online = call;
    return () => {
      this.online = () => {};
    };
  }

  openSocket(): Socket {
    const socket = new HandSocket();
    this.sockets.push(socket);
    return socket;
  }

  log(message: string): void {
    this.logged.push(message);
  }

  /** Let time pass, and what is due in it happen in its order. */
  pass(ms: number): void {
    const endMs = this.timeMs + ms;
    for (;;) {
      const [next] = this.timers
        .filter(({ atMs }) => atMs <= endMs)
        .sort((one, other) => one.atMs - other.atMs);
      if (next === undefined) {
        break;
      }
      this.timers = this.timers.filter((timer) => timer !== next);
      this.timeMs = Math.max(this.timeMs, next.atMs);
      next.call();
    }
    this.timeMs = endMs;
  }

  /** The newest socket. */
  get socket(): HandSocket {
    const socket = this.sockets.at(-1);
    if (socket === undefined) {
      throw new Error("no socket was opened");
    }
    return socket;
  }
}
