/**
 * What a client changes about its query set, until it is sent.
 *
 * Pure. All that is added and removed until the next frames are taken travels in one message: a page that
 * subscribes to a hundred queries is answered with one transition.
 */

import type { ClientEvent } from "./events.js";
import { tooLarge } from "./failures.js";
import { LIST_ITEMS_MAX } from "./limits.js";
import type { AddQuery, ClientMessage } from "./messages.js";
import type { Query } from "./query.js";

const REMOVED_BYTES = 9; // of one number in a message, at most

/** The query set of one connection after another. */
export class QuerySet {
  /** Of the last modification, what is not sent yet included; 0 on a new connection. */
  number = 0;
  readonly #send: (message: ClientMessage) => void;
  #added = new Map<number, AddQuery>();
  #removed: number[] = [];
  #bytesLeft = 0;
  #open = false;
  #frameLimitBytes: number;

  constructor(send: (message: ClientMessage) => void, frameLimitBytes: number) {
    this.#send = send;
    this.#frameLimitBytes = frameLimitBytes;
  }

  /** Take over how large a message may be. */
  limitFrames(frameLimitBytes: number): void {
    this.#frameLimitBytes = frameLimitBytes;
  }

  /** Begin a modification, which is sent though nothing may come in. */
  begin(): void {
    this.flush();
    this.number++;
    this.#bytesLeft = this.#frameLimitBytes;
    this.#open = true;
  }

  /**
   * Bring all queries to a new connection, in as many messages as the frame limit asks for, and at least one.
   * Returns what there is to tell of those that no message holds.
   */
  resume(queries: ReadonlyMap<number, Query>): ClientEvent[] {
    const events: ClientEvent[] = [];
    this.begin();
    for (const [number, query] of queries) {
      if (query.sizeBytes > this.#frameLimitBytes) {
        query.digest = null;
        const error = tooLarge(query.sizeBytes, this.#frameLimitBytes);
        events.push({ type: "QueryChanged", query: number, outcome: { error } });
      } else {
        this.add(number, query);
      }
    }
    return events;
  }

  /** Add a query, as the client has it now. */
  add(number: number, query: Query): void {
    query.carried = true;
    this.#makeRoom(query.sizeBytes);
    this.#added.set(number, [number, query.name, query.args, query.journal, query.digest]);
  }

  /** Remove a query that was added; the server need not hear of one that it does not know yet. */
  remove(number: number): void {
    if (!this.#added.delete(number)) {
      this.#makeRoom(REMOVED_BYTES);
      this.#removed.push(number);
    }
  }

  /** Send what has come together: before any other message, whose place behind it counts. */
  flush(): void {
    if (this.#open) {
      const { number } = this;
      const [added, removed] = [[...this.#added.values()], this.#removed];
      this.#forgetChanges();
      this.#send([2, number - 1, number, added, removed]);
    }
  }

  /** The connection has ended. */
  forget(): void {
    this.number = 0;
    this.#forgetChanges();
  }

  #forgetChanges(): void {
    this.#added = new Map();
    this.#removed = [];
    this.#open = false;
  }

  #makeRoom(sizeBytes: number): void {
    const full = Math.max(this.#added.size, this.#removed.length) >= LIST_ITEMS_MAX;
    if (!this.#open || sizeBytes > this.#bytesLeft || full) {
      this.begin();
    }
    this.#bytesLeft -= sizeBytes;
  }
}
