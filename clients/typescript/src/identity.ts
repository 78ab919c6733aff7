/**
 * Who the client is to the server: the tokens that it has asked with, and which of them holds. Pure.
 *
 * A *sign-in* is what the caller begins with a token, or ends without one; a *refresh* brings it another token for
 * the same user. Calls belong to the sign-in under which they were made.
 */

import { ProtocolError } from "./errors.js";
import type { ClientMessage } from "./messages.js";

const NONE = -1;

interface Attempt {
  readonly token: string | null;
  readonly signIn: number;
}

export class Identity {
  /** How many times this connection has asked. */
  asked = 0;
  /** Number of the present sign-in; 0 before the first. */
  signIn = 0;
  /** Whether that is with a token; else the client is nobody. */
  signedIn = false;
  readonly #send: (message: ClientMessage) => void;
  #holds: Attempt = { token: null, signIn: 0 }; // the last accepted one
  readonly #attempts = new Map<number, Attempt>(); // without a verdict, by number, which rises
  #isFirst = true; // nobody signed in, and no connection yet: what was called waits for who that will be
  #knownAs = NONE; // the sign-in that this connection's server has accepted

  constructor(send: (message: ClientMessage) => void) {
    this.#send = send;
  }

  /** Whether calls of the present sign-in may be sent: the server would run them as its user's. */
  get isReady(): boolean {
    return !this.signedIn || this.#knownAs === this.signIn;
  }

  /** Whether calls wait for a verdict that is on its way. */
  get waits(): boolean {
    return !this.isReady && this.#attempts.size > 0;
  }

  /** Ask for another identity: now if there is a connection, else with the next one. */
  ask(token: string | null, refresh: boolean, now: boolean): void {
    if (token === null || !refresh || !this.signedIn) {
      this.signIn += this.#isFirst ? 0 : 1;
      this.#isFirst = false;
      this.signedIn = token !== null;
    }
    const attempt = { token, signIn: this.signIn };
    if (now) {
      this.#sendAttempt(attempt);
    } else {
      this.#attempts.set(this.asked++, attempt);
    }
  }

  /** Ask the new connection for the last identity that was asked for. */
  resume(): void {
    this.#isFirst = false;
    this.asked = 0;
    const pending = [...this.#attempts.values()].at(-1); // of several only the last still counts
    this.#attempts.clear();
    const wanted = pending ?? this.#holds;
    if (pending || wanted.token !== null) {
      this.#forget(wanted.signIn);
      this.#sendAttempt(wanted);
    }
  }

  /** The connection has ended. */
  disconnected(): void {
    this.#knownAs = NONE;
  }

  /** Values hold under this identity from now on; false if its token was taken back meanwhile. */
  accepted(identity: number): boolean {
    const attempt = this.#attempts.get(identity - 1);
    for (const number of this.#attempts.keys()) {
      if (number < identity) {
        this.#attempts.delete(number);
      }
    }
    if (!attempt) {
      this.#forget();
      return false;
    }
    this.#holds = attempt;
    this.#knownAs = Math.max(this.#knownAs, attempt.signIn);
    return true;
  }

  /**
   * An attempt was refused, or the token that holds does so no more. `reflected` is the identity of the last
   * transition. Returns whether it was a refusal: the identity stays what it was.
   */
  refused(number: number, reflected: number): boolean {
    if (this.#attempts.delete(number)) {
      return true;
    }
    if (number + 1 !== reflected || this.#holds.token === null) {
      throw new ProtocolError(`unexpected AuthError ${number}`);
    }
    this.#forget();
    if (this.signedIn) {
      this.#knownAs = NONE;
    }
    return false;
  }

  #forget(signIn = this.#holds.signIn): void {
    this.#holds = { token: null, signIn };
  }

  #sendAttempt(attempt: Attempt): void {
    this.#attempts.set(this.asked, attempt);
    this.#send([5, this.asked++, attempt.token]);
    if (attempt.token === null) {
      this.#knownAs = attempt.signIn; // never refused
    }
  }
}
