/** The mutations and actions of a client that are not resolved. Pure. */

import { HeadwaterError, ProtocolError } from "./errors.js";
import type { ClientEvent, Outcome } from "./events.js";
import type { Identity } from "./identity.js";
import type { ActionAnswer, ActionPiece, MutationAnswer } from "./messages.js";
import { type Call, isOutstanding, isSent, type Request } from "./requests.js";
import type { Updates } from "./screen.js";
import type { Update } from "./view.js";

export class InFlight {
  readonly #requests = new Map<number, Request>(); // by number, rising
  #next = 1;
  #resentBelow = 1; // requests below it are older than this connection

  get size(): number {
    return this.#requests.size;
  }

  /** Return the request of a call, with the next number, which `add` takes. */
  made(call: Call, { signIn, signedIn }: Identity): Request {
    return { ...call, signIn, signedIn, number: this.#next };
  }

  add(request: Request): void {
    this.#next++;
    this.#requests.set(request.number, request);
  }

  /** Forget a request; return what there is to tell of it. */
  resolve({ number }: Request, outcome: Outcome): ClientEvent {
    this.#requests.delete(number);
    return { type: "Resolved", request: number, outcome };
  }

  /** Return the number below which all mutations are answered; that of `request`, which is the newest, if all are. */
  answeredBelow(request: Request): number {
    const [first = request] = this.#which(({ kind, success }) => kind === "mutation" && !success);
    return first.number;
  }

  /** The optimistic updates that still show. */
  updates(): Updates {
    return this.#which(({ update }) => update).map(({ number, update }) => [number, update as Update]);
  }

  /** Whether the results of this moment may have the change of a mutation whose update shows it as well. */
  inDoubt(ts: number): boolean {
    return this.#which((request) => request.resent && request.update && !isCovered(request, ts)).length > 0;
  }

  /** Resolve the mutations whose effect is in results of this moment. */
  covered(ts: number): ClientEvent[] {
    return this.#which((request) => isCovered(request, ts)).map((request) =>
      this.resolve(request, { value: request.success?.value ?? null }),
    );
  }

  /** Return the request that an answer or a piece is for. */
  asked({ type, request: number }: MutationAnswer | ActionAnswer | ActionPiece): Request {
    const request = this.#requests.get(number);
    const fits =
      request?.kind === "mutation" ? type === "MutationAnswer" : type === "ActionAnswer" || request?.window;
    if (!request?.waits || !fits) {
      throw new ProtocolError(`unexpected ${type} for request ${number}`);
    }
    return request;
  }

  /** Return a request that is not resolved. */
  get(number: number): Request | undefined {
    return this.#requests.get(number);
  }

  /** A connection begins. */
  connected(): void {
    this.#resentBelow = this.#next;
  }

  /** Return what this connection has to carry and has not yet. */
  outstanding(): Request[] {
    return this.#which(isOutstanding);
  }

  /** What was sent on an earlier connection will be sent again, but not yet. */
  hold(): void {
    for (const request of this.#requests.values()) {
      request.resent = isSent(request);
    }
  }

  /** Return what must not be sent any more: calls of a user who is not the client's any more, and how they end. */
  stranded(present: number): [Request, HeadwaterError][] {
    return this.outstanding()
      .filter(({ signedIn, signIn }) => signedIn && signIn !== present)
      .map((request) => [
        request,
        isSent(request)
          ? new HeadwaterError("outcome_unknown", "its user signed out before the answer came")
          : new HeadwaterError("unauthenticated", "its user signed out before it was sent"),
      ]);
  }

  /** Whether all that was outstanding when the connection began is answered. */
  get settled(): boolean {
    return !this.#which(({ number, waits }) => waits && number < this.#resentBelow).length;
  }

  /** The connection has ended: resolve the actions that it carried. */
  disconnected(): ClientEvent[] {
    for (const request of this.#requests.values()) {
      request.waits = false;
    }
    const error = new HeadwaterError("connection_lost", "the connection ended before the answer came");
    return this.#end(error, ({ kind }) => kind === "action");
  }

  /** Resolve the mutations that were sent without an answer: they cannot be sent under another session. */
  unsure(): ClientEvent[] {
    return this.#end(
      new HeadwaterError("outcome_unknown", "its session was lost before the answer came"),
      isOutstanding,
    );
  }

  #end(error: HeadwaterError, chosen: (request: Request) => boolean): ClientEvent[] {
    return this.#which((request) => isSent(request) && chosen(request)).map((request) =>
      this.resolve(request, { error }),
    );
  }

  #which(chosen: (request: Request) => unknown): Request[] {
    return [...this.#requests.values()].filter(chosen);
  }
}

/** Whether a mutation succeeded and results that hold at `ts` show its effect. */
function isCovered({ success }: Request, ts: number): boolean {
  return success !== undefined && success.ts <= ts;
}
