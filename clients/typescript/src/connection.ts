/** Keeps a session connected: one transport after the other, for as long as it is of use. */

import { backoffMs } from "./backoff.js";
import type { Environment } from "./environment.js";
import { HeadwaterError, ProtocolError } from "./errors.js";
import type { ClientEvent } from "./events.js";
import { SESSION_BYTES } from "./limits.js";
import type { ClientSession } from "./session.js";
import { openTransport, type Transport } from "./transport.js";

const TICKS_PER_HEARTBEAT = 4;

/** Where a connection stands: before the first, with one, after the first was lost, over. */
export type Phase = "connecting" | "open" | "reconnecting" | "closed";

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
  readonly #dispatch: (events: readonly ClientEvent[]) => void;
  readonly #changed: () => void;
  readonly #ended: (error: HeadwaterError) => void;
  #transport: Transport | undefined; // while there is one, also while it opens
  #carries = false; // the transport is open
  #flushing = false;
  #forgetOnline: (() => void) | undefined; // set once it has begun
  #forgetRetry: (() => void) | undefined; // while the next attempt waits
  #forgetTick = (): void => {};

  /** `changed` is called when an attribute has changed, `ended` when there will be no other connection. */
  constructor(
    address: string,
    session: ClientSession,
    environment: Environment,
    dispatch: (events: readonly ClientEvent[]) => void,
    changed: () => void,
    ended: (error: HeadwaterError) => void,
  ) {
    this.#address = address;
    this.#session = session;
    this.#environment = environment;
    this.#dispatch = dispatch;
    this.#changed = changed;
    this.#ended = ended;
  }

  /** Connect, and stay connected. May be called again. */
  begin(): void {
    if (!this.#forgetOnline && this.phase !== "closed") {
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
      this.#transport = openTransport(
        this.#address,
        this.#environment,
        () => this.#greet(),
        (frame) => this.#receive(frame),
        (problem, code) => this.#lost(problem, finalError(code, problem)),
      );
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
      this.#changed();
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
    this.#dispatch(events);
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
          this.#dispatch(this.#session.renew(this.#environment.randomBytes(SESSION_BYTES)));
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
    if (final) {
      this.#end();
      return this.#ended(final);
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
    if (this.#forgetRetry) {
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
    this.#dispatch(this.#session.disconnected());
  }

  #move(phase: Phase): void {
    if (this.phase !== "closed") {
      this.phase = phase; // else one who was told of an event has closed it, before the event was seen to here
      this.#changed();
    }
  }
}

/** Return the error that a close code stands for, if another connection would meet it again. */
function finalError(closeCode: number, problem: string): HeadwaterError | undefined {
  switch (closeCode) {
    case 1002:
    case 1007:
      return new ProtocolError(problem);
    case 1009:
      return new HeadwaterError("frame_too_large", problem);
    default:
      return undefined;
  }
}
