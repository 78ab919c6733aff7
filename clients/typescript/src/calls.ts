/** Calls of a client that wait for what they come to. */

import type { Value } from "./api.js";
import { HeadwaterError } from "./errors.js";
import type { Outcome } from "./events.js";
import type { ClientSession } from "./session.js";

/** Kinds of calls. */
export type CallKind = "query" | "mutation" | "action";

type Settle = (outcome: Outcome) => void;

/** Takes a piece of an action and its size. */
export type TakePiece = (value: Value, size: number) => void;

export class Calls {
  /** How many wait. */
  readonly count: Record<CallKind, number> = { query: 0, mutation: 0, action: 0 };
  readonly #session: ClientSession;
  readonly #inFlightMax: number;
  readonly #wallMs: () => number;
  readonly #act: () => void;
  readonly #changed: () => void;
  readonly #began = new Set<Date>(); // when those that wait were made, in their order
  readonly #requests = new Map<number, readonly [Settle, TakePiece | undefined]>(); // mutations and actions in flight
  readonly #queries = new Map<number, Settle>(); // subscriptions that wait for one value
  readonly #queued: (() => void)[] = []; // requests that wait until fewer are in flight
  #over: HeadwaterError | undefined; // set when nothing goes on any more: why

  /** `act` is called when the session has something to show or to send, `changed` when another call waits or one less. */
  constructor(
    session: ClientSession,
    inFlightMax: number,
    wallMs: () => number,
    act: () => void,
    changed: () => void,
  ) {
    this.#session = session;
    this.#inFlightMax = inFlightMax;
    this.#wallMs = wallMs;
    this.#act = act;
    this.#changed = changed;
  }

  /** When the first of those that wait was made, null if none does. */
  get oldest(): Date | null {
    const [first] = this.#began;
    return first ?? null;
  }

  /** Throws if nothing goes on any more. */
  requireOpen(): void {
    if (this.#over) {
      throw new HeadwaterError(this.#over.code, this.#over.message);
    }
  }

  /** Return a query's result, at one moment from now on. */
  ask(name: string, packed: Uint8Array): Promise<Value> {
    return this.#during("query", (settle) => {
      this.requireOpen();
      const number = this.#session.subscribe(name, packed, true);
      this.#queries.set(number, (outcome) => {
        this.#queries.delete(number);
        this.#session.unsubscribe(number);
        this.#act();
        settle(outcome);
      });
      this.#act();
    });
  }

  /** Make a request, once there is room for it and those before it are made, and return its result. */
  request(kind: "mutation" | "action", request: () => number, takePiece?: TakePiece): Promise<Value> {
    return this.#during(kind, (settle, reject) => {
      this.#queued.push(() => {
        try {
          this.requireOpen();
          this.#requests.set(request(), [settle, takePiece]);
          this.#act();
        } catch (error) {
          reject(error);
        }
      });
      this.#advance();
    });
  }

  /** A query has a result: tell the call that waits for it, if there is one. */
  told(query: number, outcome: Outcome): void {
    this.#queries.get(query)?.(outcome);
  }

  /** A piece of an action has come. */
  arrived(request: number, value: Value, size: number): void {
    this.#requests.get(request)?.[1]?.(value, size);
  }

  /** A request is resolved: tell its call, and make the next ones. */
  resolved(request: number, outcome: Outcome): void {
    const [settle] = this.#requests.get(request) ?? [];
    this.#requests.delete(request);
    settle?.(outcome);
    this.#advance();
  }

  /** Be over, once: everything that waits is told. */
  end(reason: HeadwaterError): void {
    if (this.#over) {
      return;
    }
    this.#over = reason;
    for (const settle of this.#queries.values()) {
      settle({ error: reason });
    }
    const error = new HeadwaterError("connection_lost", `${reason.message} before the answer came`);
    for (const [settle] of this.#requests.values()) {
      settle({ error });
    }
    this.#requests.clear();
    for (const make of this.#queued.splice(0)) {
      make(); // and fail
    }
  }

  /** Make those that are queued, as many as there is room for: one that cannot be made leaves its room to the next. */
  #advance(): void {
    while (this.#queued.length > 0 && this.#session.inFlight < this.#inFlightMax) {
      this.#queued.shift()?.();
    }
  }

  /** Count a call until it is settled. */
  async #during(
    kind: CallKind,
    begin: (settle: Settle, reject: (error: unknown) => void) => void,
  ): Promise<Value> {
    const now = new Date(this.#wallMs());
    this.#began.add(now);
    this.count[kind]++;
    try {
      const promise = new Promise<Value>((resolve, reject) =>
        begin(({ value, error }) => (error === undefined ? resolve(value) : reject(error)), reject),
      );
      this.#changed();
      return await promise;
    } finally {
      this.#began.delete(now);
      this.count[kind]--;
      this.#changed();
    }
  }
}
