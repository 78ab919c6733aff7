/** The mutations and actions of a client that are not resolved. Pure. */

import { HeadwaterError, ProtocolError } from "./errors.js";
import type { ClientEvent, Outcome } from "./events.js";
import type { Identity } from "./identity.js";
import type { ActionAnswer, ActionPiece, MutationAnswer } from "./messages.js";
import { Request } from "./requests.js";
import type { Updates } from "./screen.js";
import { decodeValue } from "./values.js";
import type { Update } from "./view.js";

export class InFlight {
  readonly #requests = new Map<number, Request>(); // by number, rising
  #next = 1;
  #resentBelow = 1; // requests below it are older than this connection

  get size(): number {
    return this.#requests.size;
  }

  /** All of them, in the order of their calls. */
  all(): Iterable<Request> {
    return this.#requests.values();
  }

  /** Return a request with the next number, which `add` takes. */
  made(
    kind: Request["kind"],
    name: string,
    args: Uint8Array,
    update: Update | undefined,
    identity: Identity,
    window: number,
  ): Request {
    return new Request(this.#next, kind, name, args, update, identity, window);
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

  /** The optimistic updates that still show. */
  updates(): Updates {
    return this.#which(() => true).flatMap(({ number, update }) =>
      update === undefined ? [] : [[number, update] as const],
    );
  }

  /** Whether the results of this moment may have the change of a mutation whose update shows it as well. */
  inDoubt(ts: number): boolean {
    return this.#which(({ resent, update }) => resent && update !== undefined).some(
      (request) => !request.decidedBy(ts),
    );
  }

  /** Resolve the mutations whose effect is in results of this moment. */
  covered(ts: number): ClientEvent[] {
    return this.#which((request) => request.decidedBy(ts)).map((request) =>
      this.resolve(request, { value: request.success?.value ?? null }),
    );
  }

  /** Return the request that an answer is for. */
  answered(answer: MutationAnswer | ActionAnswer, kind: Request["kind"]): Request {
    const request = this.#requests.get(answer.request);
    if (request === undefined || !request.waits || request.kind !== kind) {
      throw new ProtocolError(`${answer.type}: request ${answer.request} does not wait for one`);
    }
    request.waits = false;
    return request;
  }

  /** Return a request that is not resolved. */
  get(number: number): Request | undefined {
    return this.#requests.get(number);
  }

  /** Return what there is to tell of a piece: nothing if its caller has left. */
  arrived({ request: number, content }: ActionPiece): ClientEvent[] {
    const request = this.#requests.get(number);
    if (request === undefined || !request.waits || request.window === 0) {
      throw new ProtocolError(`ActionPiece: request ${number} does not wait for one`);
    }
    const value = decodeValue(content);
    return request.left ? [] : [{ type: "PieceArrived", request: number, value, size: content.length }];
  }

  /** A connection begins. */
  connected(): void {
    this.#resentBelow = this.#next;
  }

  /** Return what this connection has to carry and has not yet. */
  outstanding(): Request[] {
    return this.#which(({ outstanding }) => outstanding);
  }

  /** What was sent on an earlier connection will be sent again, but not yet. */
  hold(): void {
    for (const request of this.#requests.values()) {
      request.resent = request.sent;
    }
  }

  /** Return what must not be sent any more: calls of a user who is not the client's any more, and how they end. */
  stranded(present: number): [Request, HeadwaterError][] {
    return this.#which(
      ({ outstanding, signedIn, signIn }) => outstanding && signedIn && signIn !== present,
    ).map((request) => [
      request,
      request.sent
        ? new HeadwaterError(
            "outcome_unknown",
            "its user signed out, and the connection ended before the answer came",
          )
        : new HeadwaterError("unauthenticated", "its user signed out before it was sent: it was not run"),
    ]);
  }

  /** Whether all that was outstanding when the connection began is answered. */
  get settled(): boolean {
    return this.#which(({ number, waits }) => waits && number < this.#resentBelow).length === 0;
  }

  /** The connection has ended: resolve the actions that it carried. */
  disconnected(): ClientEvent[] {
    for (const request of this.#requests.values()) {
      request.waits = false;
    }
    const error = new HeadwaterError("connection_lost", "the connection ended while the call was in flight");
    return this.#which(({ kind, sent }) => sent && kind === "action").map((request) =>
      this.resolve(request, { error }),
    );
  }

  /** Resolve the mutations that were sent without an answer: they cannot be sent under another session. */
  unsure(): ClientEvent[] {
    const error = new HeadwaterError("outcome_unknown", "the mutation may or may not have taken effect");
    return this.#which(({ sent, success }) => sent && success === undefined).map((request) =>
      this.resolve(request, { error }),
    );
  }

  #which(chosen: (request: Request) => boolean): Request[] {
    return [...this.#requests.values()].filter(chosen);
  }
}
