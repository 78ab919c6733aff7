/** Keeps a session connected: one transport after the other, for as long as it is of use. */

import { backoffMs } from "./backoff.js";
import type { Environment } from "./environment.js";
import { HeadwaterError, ProtocolError } from "./errors.js";
import type { ClientEvent } from "./events.js";
import { SESSION_BYTES } from "./limits.js";
import type { ClientSession } from "./session.js";
import { Transport } from "./transport.js";

const TICKS_PER_HEARTBEAT = 4;

/** Where a connection stands: before the first, with one, after the first was lost, over. */
export type Phase = "connecting" | "open" | "reconnecting" | "closed";

/** Close codes that stand for an error that another connection would meet again. */
const FINAL_CLOSES = new Map([
  [1002, "protocol_error"],
  [1007, "protocol_error"],
  [1009, "frame_too_large"],
]);

/** What the client around a connection is told. */
export interface ConnectionEvents {
  dispatch(events: readonly ClientEvent[]): void;
  /** An attribute has changed. */
  changed(): void;
  /** There will be no other connection. */
  ended(error: HeadwaterError): void;
}

export class Connection {
  phase: Phase = "connecting";
  /** How often the server has accepted a connection. */
  opened = 0;
  /** Attempts to connect again since a connection last brought everything back. */
  attempt = 0;
  /** Why the last connection ended or was not made, null before. */
  problem: string | null = null;
  readonly #address: string;
  readonly #session: ClientSession;
  readonly #environment: Environment;
  readonly #events: ConnectionEvents;
  #transport: Transport | undefined; // while there is one, also while it opens
  #carries = false; // the transport is open
  #flushing = false;
  #forgetOnline: (() => void) | undefined; // set once it has begun
  #forgetRetry: (() => void) | undefined; // while the next attempt waits
  #forgetTick = (): void => {};

  constructor(address: string, session: ClientSession, environment: Environment, events: ConnectionEvents) {
    this.#address = address;
    this.#session = session;
    this.#environment = environment;
    this.#events = events;
  }

  /** Connect, and stay connected. May be called again. */
  begin(): void {
    if (this.#forgetOnline === undefined && this.phase !== "closed") {
      this.#forgetOnline = this.#environment.whenOnline(() => this.#retry());
      this.#open();
    }
  }

  /** Send what the session has to say, once the present step of the caller is done. */
  flush(): void {
    if (this.#carries && !this.#flushing) {
      this.#flushing = true;
      queueMicrotask(() => this.#sendFrames());
    }
  }

  /** End it for good. */
  async close(): Promise<void> {
    const transport = this.#transport;
    this.#end();
    await transport?.gone;
  }

  #open(): void {
    this.#forgetRetry = undefined;
    try {
      this.#transport = new Transport(this.#address, this.#environment, {
        opened: () => this.#greet(),
        received: (frame) => this.#receive(frame),
        ended: (problem, code) => this.#lost(problem, finalError(code, problem)),
      });
    } catch (error) {
      // A browser refuses some addresses by throwing, and so does a runtime without WebSocket.
      this.#lost(String(error), error instanceof HeadwaterError ? error : undefined);
    }
  }

  #greet(): void {
    this.#session.connect();
    this.#carries = true;
    this.#sendFrames();
    this.#tick();
  }

  #receive(frame: Uint8Array): void {
    let events: ClientEvent[];
    try {
      events = this.#session.receive(frame);
    } catch (error) {
      if (!(error instanceof ProtocolError)) {
        throw error;
      }
      const final = error.code === "unsupported_version" ? error : undefined;
      return this.#lost(`the server broke the protocol: ${error.message}`, final);
    }
    this.#take(events);
    this.flush();
    if (this.attempt > 0 && this.#session.settled) {
      this.attempt = 0;
      this.#events.changed();
    }
  }

  #tick(): void {
    this.#take(this.#session.tick(this.#environment.nowMs()));
    if (this.#carries) {
      this.flush();
      const pauseMs = this.#session.heartbeatMs / TICKS_PER_HEARTBEAT;
      this.#forgetTick = this.#environment.later(pauseMs, () => this.#tick());
    }
  }

  /** Hand on what the session tells, and see to what concerns the connection. */
  #take(events: readonly ClientEvent[]): void {
    this.#events.dispatch(events);
    for (const event of events) {
      if (event.type === "Opened") {
        this.opened++;
        this.#move("open");
      } else if (event.type === "PeerSilent") {
        this.#lost("the server has gone silent");
      } else if (event.type === "Fatal") {
        const { error, reconnect } = event;
        this.#lost(`the server ended it: ${error.message}`, reconnect ? undefined : error);
        if (error.code === "session_in_use") {
          this.#events.dispatch(this.#session.renew(this.#environment.randomBytes(SESSION_BYTES)));
        }
      }
    }
  }

  #sendFrames(): void {
    this.#flushing = false;
    if (this.#carries) {
      for (const frame of this.#session.takeFrames()) {
        this.#transport?.send(frame);
      }
    }
  }

  /** The connection is gone; make another one, unless `final` says why there shall be none. */
  #lost(problem: string, final?: HeadwaterError): void {
    if (this.phase === "closed") {
      return;
    }
    this.problem = problem;
    if (final !== undefined) {
      this.#end();
      return this.#events.ended(final);
    }
    this.#leave();
    const pauseMs = backoffMs(this.attempt++, this.#environment.chance());
    this.#forgetRetry = this.#environment.later(pauseMs, () => this.#open());
    this.#move(this.opened > 0 ? "reconnecting" : "connecting");
  }

  #end(): void {
    this.#forgetOnline?.();
    this.#leave();
    this.#move("closed");
  }

  /** Do not wait any longer with the next attempt. */
  #retry(): void {
    if (this.#forgetRetry !== undefined) {
      this.#forgetRetry();
      this.#open();
    }
  }

  /** Let go of the transport and of all that waits. */
  #leave(): void {
    this.#forgetTick();
    this.#forgetRetry?.();
    this.#forgetRetry = undefined;
    this.#carries = false;
    this.#transport?.close();
    this.#transport = undefined;
    this.#events.dispatch(this.#session.disconnected());
  }

  #move(phase: Phase): void {
    this.phase = phase;
    this.#events.changed();
  }
}

function finalError(code: number, problem: string): HeadwaterError | undefined {
  const found = FINAL_CLOSES.get(code);
  return found === undefined ? undefined : new HeadwaterError(found, problem);
}
