/** The pieces of an action that streams, as its caller takes them. */

import type { HeadwaterError } from "./errors.js";

interface Piece<T> {
  readonly value: T;
  readonly size: number;
}

/** What a stream needs of the client. */
export interface StreamHost<T> {
  /** Begin the action; called with the first step of the loop. Throws what keeps it from beginning. */
  readonly begin: (stream: ActionStream<T>) => void;
  /** The caller has a piece of that size. */
  readonly taken: (size: number) => void;
  /** The caller has left: nobody takes what comes. */
  readonly leave: () => void;
}

/**
 * The pieces of an action: `for await (const word of client.stream(api.answers.words, { text }))`.
 *
 * The action begins with the first step. All pieces come, in order; the server sends no more than a window of them
 * ahead, so a slow loop slows the action down. Leaving the loop cancels the action.
 */
export class ActionStream<T> implements AsyncIterableIterator<T> {
  readonly #host: StreamHost<T>;
  readonly #pieces: Piece<T>[] = [];
  #begun = false;
  #over = false;
  #error: HeadwaterError | undefined; // thrown once, behind the last piece
  #waiting: (() => void)[] = [];

  constructor(host: StreamHost<T>) {
    this.#host = host;
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  async next(): Promise<IteratorResult<T, undefined>> {
    if (!this.#begun && !this.#over) {
      this.#begun = true;
      this.#host.begin(this);
    }
    while (this.#pieces.length === 0 && !this.#over) {
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
    const piece = this.#pieces.shift();
    if (piece !== undefined) {
      this.#host.taken(piece.size);
      return { done: false, value: piece.value };
    }
    const error = this.#error;
    this.#error = undefined;
    if (error !== undefined) {
      throw error;
    }
    return { done: true, value: undefined };
  }

  /** Cancel the action, if it is not over; a loop that is left does it by itself. */
  async return(): Promise<IteratorResult<T, undefined>> {
    if (this.#begun && !this.#over) {
      this.#host.leave();
    }
    this.#pieces.length = 0;
    this.end(undefined);
    return { done: true, value: undefined };
  }

  /** Add a piece. For the client. */
  put(value: T, size: number): void {
    if (!this.#over) {
      this.#pieces.push({ value, size });
      this.#wake();
    }
  }

  /** Let nothing come any more. For the client. */
  end(error: HeadwaterError | undefined): void {
    if (!this.#over) {
      this.#over = true;
      this.#error = error;
      this.#wake();
    }
  }

  #wake(): void {
    for (const resolve of this.#waiting.splice(0)) {
      resolve();
    }
  }
}
