/** The queries that a client follows: one subscription for all who follow the same one. */

import type { Value } from "./api.js";
import type { HeadwaterError } from "./errors.js";
import type { ClientEvent, Outcome } from "./events.js";
import { followed } from "./followers.js";
import { keyOfQuery } from "./query.js";
import type { ClientSession } from "./session.js";

/** Called when there is something new to look at. */
export type Listener = () => void;

/** Followers of one query, and the newest that came. */
interface Subscription {
  readonly number: number;
  outcome?: Outcome;
  /** Page chains, which look at all their pages before anybody else is told of one. */
  readonly parts: Set<Listener>;
  readonly listeners: Set<Listener>;
}

export class Subscriptions {
  readonly #session: ClientSession;
  readonly #byKey = new Map<string, Subscription>();
  readonly #byNumber = new Map<number, Subscription>();

  constructor(session: ClientSession) {
    this.#session = session;
  }

  /** Call `listener` whenever a query has another result; return what ends that. Throws what `subscribe` throws. */
  follow(name: string, args: Uint8Array, listener: Listener, part = false): () => void {
    const key = keyOfQuery(name, args);
    let found = this.#byKey.get(key);
    if (!found) {
      found = { number: this.#session.subscribe(name, args), parts: new Set(), listeners: new Set() };
      this.#byKey.set(key, found);
      this.#byNumber.set(found.number, found);
    }
    const { number, parts, listeners } = found;
    return followed(part ? parts : listeners, listener, () => {
      if (parts.size + listeners.size === 0) {
        this.#byKey.delete(key);
        this.#byNumber.delete(number);
        this.#session.unsubscribe(number);
      }
    });
  }

  /** Return what a query came to; undefined while nobody follows it or nothing has come. */
  outcome(name: string, args: Uint8Array): Outcome | undefined {
    return this.#byKey.get(keyOfQuery(name, args))?.outcome;
  }

  /** Take a result: have the parts called at once, and the listeners added to those who are to be told. */
  put(number: number, outcome: Outcome, told: Set<Listener>): void {
    const found = this.#byNumber.get(number);
    if (!found || isSame(found.outcome, outcome)) {
      return;
    }
    found.outcome = outcome;
    for (const part of found.parts) {
      part();
    }
    for (const listener of found.listeners) {
      told.add(listener);
    }
  }

  /** Return what there is to tell when nothing will come any more: that all fail. */
  failures(error: HeadwaterError): ClientEvent[] {
    return [...this.#byNumber.keys()].map((query) => ({ type: "QueryChanged", query, outcome: { error } }));
  }
}

function isSame(one: Outcome | undefined, other: Outcome): boolean {
  return one?.error === undefined && other.error === undefined && one?.value === other.value;
}

/** Return the value of an outcome, undefined if there is none. Throws its error. */
export function resultOf(outcome: Outcome | undefined): Value | undefined {
  if (outcome?.error) {
    throw outcome.error;
  }
  return outcome?.value;
}
