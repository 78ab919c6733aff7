/**
 * What a client changes about its query set until it is sent, and all that is to be sent, in order.
 *
 * Pure. All that is added and removed until the next frames are taken travels in one message: a page that
 * subscribes to a hundred queries is answered with one transition.
 */

import { HeadwaterError } from "./errors.js";
import type { ClientEvent } from "./events.js";
import { LIST_ITEMS_MAX } from "./limits.js";
import { type AddQuery, encodeMessage } from "./messages.js";
import type { Query } from "./query.js";

const REMOVED_BYTES = 9; // of one number in a message, at most
const FRAME_LIMIT_BYTES = 16 * 1024 * 1024; // what a server is thought to take before it has told

/** The query set of one connection after another. */
export class QuerySet {
  /** Of the last modification, what is not sent yet included; 0 on a new connection. */
  number = 0;
  /** How large a message may be. */
  frameLimitBytes = FRAME_LIMIT_BYTES;
  readonly #tell: (event: ClientEvent) => void;
  #frames: Uint8Array[] = [];
  #added = new Map<number, AddQuery>();
  #removed: number[] = [];
  #bytesLeft = 0;
  #open = false;

  constructor(tell: (event: ClientEvent) => void) {
    this.#tell = tell;
  }

  /** Have a frame sent, behind what has come together: its place behind that counts. */
  send(frame: Uint8Array): void {
    this.#flush();
    this.#frames.push(frame);
  }

  /** Return the frames that are to be sent now; each is handed out once. */
  takeFrames(): Uint8Array[] {
    this.#flush();
    const frames = this.#frames;
    this.#frames = [];
    return frames;
  }

  /** Return the error for a message of that size, undefined if the server takes it. */
  refusal(sizeBytes: number): HeadwaterError | undefined {
    return sizeBytes > this.frameLimitBytes
      ? new HeadwaterError(
          "frame_too_large",
          `${sizeBytes} bytes are more than the limit of ${this.frameLimitBytes}`,
        )
      : undefined;
  }

  /** Begin a modification, which is sent though nothing may come in. */
  begin(): void {
    this.#flush();
    this.number++;
    this.#bytesLeft = this.frameLimitBytes;
    this.#open = true;
  }

  /**
   * Bring all queries to a new connection, in as many messages as the frame limit asks for, and at least one.
   * Those that no message holds fail.
   */
  resume(queries: ReadonlyMap<number, Query>): void {
    this.begin();
    for (const [number, query] of queries) {
      const error = this.refusal(query.sizeBytes);
      if (!error) {
        this.add(number, query);
      } else {
        query.digest = null;
        this.#tell({ type: "QueryChanged", query: number, outcome: { error } });
      }
    }
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

  /** There is another connection, or none. */
  forget(): void {
    this.number = 0;
    this.#frames = [];
    this.#forgetChanges();
  }

  #flush(): void {
    if (this.#open) {
      const { number } = this;
      this.#frames.push(encodeMessage([2, number - 1, number, [...this.#added.values()], this.#removed]));
      this.#forgetChanges();
    }
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
