/** Who the client is to the server: the tokens that it has asked with, and which of them holds. Pure. */

import { ProtocolError } from "./errors.js";
import type { ClientMessage } from "./messages.js";

export class Identity {
  /** How many times this connection has asked. */
  asked = 0;
  readonly #send: (message: ClientMessage) => void;
  #token: string | null = null; // last accepted one
  #attempts = new Map<number, string | null>(); // tokens without a verdict, by number

  constructor(send: (message: ClientMessage) => void) {
    this.#send = send;
  }

  /** Ask for another identity: now if there is a connection, else with the next one. */
  ask(token: string | null, now: boolean): void {
    if (now) {
      this.#attempts.set(this.asked, token);
      this.#send([5, this.asked++, token]);
    } else {
      this.#attempts = new Map([[0, token]]);
    }
  }

  /** Ask the new connection for the last identity that was asked for. */
  resume(): void {
    this.asked = 0;
    const pending = [...this.#attempts.values()];
    this.#attempts.clear();
    const wanted = pending.length > 0 ? (pending.at(-1) ?? null) : this.#token;
    if (pending.length > 0 || wanted !== null) {
      this.#token = null;
      this.ask(wanted, true);
    }
  }

  /** The connection has ended: of several attempts only the last still counts. */
  disconnected(): void {
    if (this.#attempts.size > 0) {
      this.#attempts = new Map([[0, [...this.#attempts.values()].at(-1) ?? null]]);
    }
  }

  /** All attempts before this number are accepted. */
  accepted(before: number): void {
    for (const [number, token] of this.#attempts) {
      if (number < before) {
        this.#attempts.delete(number);
        this.#token = token;
      }
    }
  }

  /** An attempt was refused. */
  refused(number: number): void {
    if (!this.#attempts.delete(number)) {
      throw new ProtocolError(`AuthError: authentication ${number} does not wait for a verdict`);
    }
  }
}
