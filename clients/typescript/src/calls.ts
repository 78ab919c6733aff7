/** Calls of a client that wait for what they come to. */

import type { Value } from "./api.js";
import { HeadwaterError } from "./errors.js";
import type { Outcome } from "./events.js";
import type { ClientSession } from "./session.js";

type Settle = (outcome: Outcome) => void;

export class Calls {
  readonly #session: ClientSession;
  readonly #inFlightMax: number;
  readonly #act: () => void;
  readonly #requests = new Map<number, Settle>(); // mutations and actions in flight
  readonly #queries = new Map<number, Settle>(); // subscriptions that wait for one value
  readonly #queued: (() => void)[] = []; // requests that wait until fewer are in flight
  #over: HeadwaterError | undefined; // set when nothing goes on any more: why

  /** `act` is called when the session has something to show or to send. */
  constructor(session: ClientSession, inFlightMax: number, act: () => void) {
    this.#session = session;
    this.#inFlightMax = inFlightMax;
    this.#act = act;
  }

  /** Whether nothing goes on any more. */
  get over(): boolean {
    return this.#over !== undefined;
  }

  /** Throws if nothing goes on any more. */
  requireOpen(): void {
    if (this.#over !== undefined) {
      throw new HeadwaterError(this.#over.code, this.#over.message);
    }
  }

  /** Return a query's result, at one moment from now on. */
  ask(name: string, packed: Uint8Array): Promise<Value> {
    return new Promise((resolve, reject) => {
      this.requireOpen();
      const number = this.#session.subscribe(name, packed, true);
      this.#queries.set(number, (outcome) => {
        this.#queries.delete(number);
        this.#session.unsubscribe(number);
        this.#act();
        settle(outcome, resolve, reject);
      });
      this.#act();
    });
  }

  /** Make a request, once there is room for it and those before it are made, and return its result. */
  request(request: () => number): Promise<Value> {
    return new Promise((resolve, reject) => {
      const make = () => {
        try {
          this.requireOpen();
          this.#requests.set(request(), (outcome) => settle(outcome, resolve, reject));
          this.#act();
        } catch (error) {
          reject(error);
        }
      };
      if (this.#queued.length > 0 || this.#session.inFlight >= this.#inFlightMax) {
        this.#queued.push(make);
      } else {
        make();
      }
    });
  }

  /** A query has a result: tell the call that waits for it, if there is one. */
  told(query: number, outcome: Outcome): void {
    this.#queries.get(query)?.(outcome);
  }

  /** A request is resolved: tell its call, and make the next one. */
  resolved(request: number, outcome: Outcome): void {
    const settle = this.#requests.get(request);
    this.#requests.delete(request);
    settle?.(outcome);
    this.#queued.shift()?.();
  }

  /** Be over, once: everything that waits is told. */
  end(reason: HeadwaterError): void {
    if (this.#over !== undefined) {
      return;
    }
    this.#over = reason;
    for (const settle of this.#queries.values()) {
      settle({ error: reason });
    }
    const unknown = new HeadwaterError("connection_lost", `${reason.message} before the answer came`);
    for (const settle of this.#requests.values()) {
      settle({ error: unknown });
    }
    this.#requests.clear();
    for (const make of this.#queued.splice(0)) {
      make(); // and fail
    }
  }
}

function settle(outcome: Outcome, resolve: (value: Value) => void, reject: (error: Error) => void): void {
  if (outcome.error === undefined) {
    resolve(outcome.value);
  } else {
    reject(outcome.error);
  }
}
