/** The pieces of an action that streams, as its caller takes them. */

import type { HeadwaterError } from "./errors.js";

interface Piece<T> {
  readonly value: T;
  readonly size: number;
}

/**
 * The pieces of an action: `for await (const word of client.stream(api.answers.words, { text }))`.
 *
 * The action begins with the first step. All pieces come, in order; the server sends no more than a window of them
 * ahead, so a slow loop slows the action down. Leaving the loop cancels the action.
 */
export class ActionStream<T> implements AsyncIterableIterator<T> {
  /** Whether nothing comes any more. For the client. */
  over = false;
  readonly #begin: (stream: ActionStream<T>) => Promise<unknown>;
  readonly #taken: (size: number) => void;
  readonly #leave: () => void;
  readonly #pieces: Piece<T>[] = [];
  #begun = false;
  #error: HeadwaterError | undefined; // thrown once, behind the last piece
  #waiting: (() => void)[] = [];

  /**
   * `begin` is called with the first step of the loop and resolves with the end of the action, `taken` when the caller has a piece of that size, `leave` when
   * it has left: nobody takes what comes.
   */
  constructor(
    begin: (stream: ActionStream<T>) => Promise<unknown>,
    taken: (size: number) => void,
    leave: () => void,
  ) {
    this.#begin = begin;
    this.#taken = taken;
    this.#leave = leave;
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  async next(): Promise<IteratorResult<T, undefined>> {
    if (!this.#begun && !this.over) {
      this.#begun = true;
      this.#begin(this).then(
        () => this.end(),
        (error) => this.end(error),
      );
    }
    while (this.#pieces.length === 0 && !this.over) {
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
    const piece = this.#pieces.shift();
    if (piece) {
      this.#taken(piece.size);
      return { done: false, value: piece.value };
    }
    const error = this.#error;
    this.#error = undefined;
    if (error) {
      throw error;
    }
    return { done: true, value: undefined };
  }

  /** Cancel the action, if it is not over; a loop that is left does it by itself. */
  async return(): Promise<IteratorResult<T, undefined>> {
    if (this.#begun && !this.over) {
      this.#leave();
    }
    this.#pieces.length = 0;
    this.end();
    return { done: true, value: undefined };
  }

  /** Add a piece. For the client. */
  put(value: T, size: number): void {
    if (!this.over) {
      this.#pieces.push({ value, size });
      this.#wake();
    }
  }

  /** Let nothing come any more. For the client. */
  end(error?: HeadwaterError): void {
    if (!this.over) {
      this.over = true;
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
