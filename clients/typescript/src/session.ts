/**
 * One client across its reconnects: calls in, frames out; frames in, events out.
 *
 * Pure: no socket, no clock, no chance. After every call the shell sends what `takeFrames` returns, in order. A
 * connection begins with `connect` and ends with `disconnected`; queries and undecided mutations outlive it.
 *
 *     idle ──connect()──► greeting ──Welcome──► open ──disconnected()──► idle
 *
 * - A mutation is in flight until it is *decided*. After a reconnect those without an answer are sent again
 *   under the same number and take effect once.
 * - A success resolves when a transition at or after its ts has been applied: whoever waits for it then sees
 *   its effect in every query. A failure resolves at once.
 * - A `ProtocolError` from `receive` means that the server broke the protocol: cut the connection, call
 *   `disconnected`, connect again. All values are then fetched anew.
 */

import { HeadwaterError, ProtocolError } from "./errors.js";
import type { ClientEvent } from "./events.js";
import { errorFrom } from "./failures.js";
import { Heartbeat } from "./heartbeat.js";
import { Identity } from "./identity.js";
import { InFlight } from "./inFlight.js";
import { CONNECT_FRAME_BYTES, QUERIES_MAX, REQUESTS_IN_FLIGHT_MAX } from "./limits.js";
import {
  type ActionPiece,
  type ClientMessage,
  decodeServerMessage,
  encodeMessage,
  type MutationAnswer,
  type ServerMessage,
  type Transition,
  type Version,
  type Welcome,
} from "./messages.js";
import { Query } from "./query.js";
import { QuerySet } from "./querySet.js";
import { type Call, isSent, outcomeOf, type Request, requestFrame } from "./requests.js";
import { Screen } from "./screen.js";
import { checkStep } from "./steps.js";
import { decodeValue } from "./values.js";
import type { Update } from "./view.js";

const VERSIONS = [1];
const GREETING_INTERVAL_MS = 5_000; // heartbeat until the server has told its own
const FINAL_CODES = new Set(["unsupported_version", "protocol_error", "frame_too_large", "unauthenticated"]);
const START: Version = { querySet: 0, identity: 0, ts: 0 };

export class ClientSession {
  /** 16 bytes that name it to the server. */
  #name: Uint8Array;
  readonly #client: string;
  #state: "idle" | "greeting" | "open" = "idle";
  #incarnation: Uint8Array | null = null;
  #version = START; // where the last transition of this connection left it
  #lastTs = 0; // newest ts that its values have held at
  #toldTs = 0; // newest ts the server has told in any message
  #shownTs = 0; // what is shown holds at
  #behind = false; // more has arrived than is shown
  #heartbeat = new Heartbeat(GREETING_INTERVAL_MS);
  #pings = 0;
  #events: ClientEvent[] = [];
  readonly #tell = (...events: readonly ClientEvent[]) => void this.#events.push(...events);
  readonly #screen = new Screen(this.#tell);
  #nextQuery = 1;
  readonly #querySet = new QuerySet(this.#tell);
  readonly #requests = new InFlight();
  #serverStreams = false; // the server of this connection takes `CancelAction`
  readonly #identity = new Identity((message) => this.#send(message));
  #resumed = 0; // query-set number that brings back everything from before this connection

  constructor(session: Uint8Array, client: string) {
    this.#name = session;
    this.#client = client;
  }

  // ------------------------------------------------------------------------------------------- the caller

  /** Whether the server has accepted a token of the present sign-in, on this connection. */
  get signedIn(): boolean {
    return this.#identity.signedIn && this.#identity.isReady;
  }

  /** Mutations and actions that are not resolved. */
  get inFlight(): number {
    return this.#requests.size;
  }

  /** Whether all that was outstanding when this connection began is answered: time to reset the backoff. */
  get settled(): boolean {
    const resumed = this.#version.querySet >= this.#resumed && !this.#identity.waits;
    return this.#state === "open" && resumed && this.#requests.settled;
  }

  /** Interval of the heartbeat at present. */
  get heartbeatMs(): number {
    return this.#heartbeat.heartbeatMs;
  }

  /** Return what calls of the caller have changed on the screen; each event is handed out once. */
  takeEvents(): ClientEvent[] {
    const events = this.#events;
    this.#events = [];
    return events;
  }

  /**
   * Subscribe to a query and return its number, which events carry.
   *
   * `confirmed` passes by optimistic updates: it shows what the server has told, as soon as it tells. Throws
   * `overloaded` for too many queries, and `frame_too_large`.
   */
  subscribe(name: string, args: Uint8Array, confirmed = false): number {
    if (this.#screen.queries.size >= QUERIES_MAX) {
      throw new HeadwaterError("overloaded", `more than ${QUERIES_MAX} queries`);
    }
    const query = new Query(name, args, confirmed);
    const refusal = this.#querySet.refusal(query.sizeBytes);
    if (refusal) {
      throw refusal;
    }
    const number = this.#nextQuery++;
    this.#screen.queries.set(number, query);
    if (this.#state === "open") {
      this.#querySet.add(number, query);
    }
    this.#show();
    return number;
  }

  /** Forget a query; no event for it follows. */
  unsubscribe(number: number): void {
    if (this.#screen.queries.get(number)?.carried) {
      this.#querySet.remove(number);
    }
    this.#screen.remove(number);
  }

  /**
   * Run a mutation and return its number; `Resolved` follows, over as many connections as it takes.
   *
   * `update` shows its change at once. It is run again over every new result until the mutation is resolved;
   * what it throws when it is run here is thrown, and nothing is sent. Throws `overloaded` for too many in
   * flight, and `frame_too_large`.
   */
  mutate(name: string, args: Uint8Array, update?: Update): number {
    if (update) {
      this.#screen.attempt(this.#requests.updates(), update);
    }
    const number = this.#request({ kind: "mutation", name, args, update });
    if (update) {
      this.#show();
    }
    return number;
  }

  /**
   * Run an action and return its number; `Resolved` follows. It is never sent twice. Throws as `mutate` does.
   *
   * With a window, so many bytes of its pieces may be on their way: `PieceArrived` comes for each before the end.
   */
  act(name: string, args: Uint8Array, window = 0): number {
    return this.#request({ kind: "action", name, args, window });
  }

  /** Say that the caller has a piece of an action: as many more bytes may come. */
  take(number: number, size: number): void {
    if (this.#requests.get(number)?.waits) {
      this.#send([8, number, size]);
    }
  }

  /** Nobody takes an action's pieces any more. `Resolved` follows; at once if it was never sent. */
  leave(number: number): void {
    const request = this.#requests.get(number);
    if (!request) {
      return;
    }
    request.left = true;
    if (!request.waits) {
      const error = new HeadwaterError("cancelled", "it was cancelled before it was sent");
      this.#tell(this.#requests.resolve(request, { error }));
    } else if (this.#serverStreams) {
      this.#send([9, number]);
    }
  }

  /**
   * Change the identity; null signs out. `IdentityChanged` or `AuthenticationFailed` follows.
   *
   * Calls made from then on wait until the server has accepted a token: they are the new user's. Those of the user
   * before that no connection carries any more end, as `unauthenticated` if they were never sent. With `refresh` it
   * is another token of the same user: calls go on.
   */
  authenticate(token: string | null, refresh = false): void {
    this.#identity.ask(token, refresh, this.#state === "open");
    this.#strand();
  }

  #show(): void {
    this.#screen.show(this.#requests.updates());
  }

  #request(call: Call): number {
    if (this.#requests.size >= REQUESTS_IN_FLIGHT_MAX) {
      throw new HeadwaterError("overloaded", `more than ${REQUESTS_IN_FLIGHT_MAX} requests`);
    }
    const request = this.#requests.made(call, this.#identity);
    const frame = this.#frameOf(request);
    const refusal = this.#querySet.refusal(frame.length);
    if (refusal) {
      throw refusal;
    }
    this.#requests.add(request);
    if (this.#state === "open" && this.#identity.isReady) {
      this.#sendRequest(request, frame);
    }
    return request.number;
  }

  // --------------------------------------------------------------------------------------- the connection

  /** Return the frames that are to be sent now, in order; each is handed out once. */
  takeFrames(): Uint8Array[] {
    const frames = this.#querySet.takeFrames();
    this.#heartbeat.spoke ||= frames.length > 0;
    return frames;
  }

  /** Begin a connection; its first frame is then there to be taken. */
  connect(): void {
    this.#state = "greeting";
    this.#heartbeat = new Heartbeat(GREETING_INTERVAL_MS);
    this.#querySet.forget();
    this.#send([1, VERSIONS, this.#name, this.#lastTs, this.#incarnation, this.#client]);
  }

  /** End the connection: actions that it carried are lost, everything else waits for the next one. */
  disconnected(): ClientEvent[] {
    if (this.#state !== "idle") {
      this.#state = "idle";
      this.#version = START;
      this.#querySet.forget();
      this.#identity.disconnected();
      for (const query of this.#screen.queries.values()) {
        query.carried = false;
      }
      this.#tell(...this.#requests.disconnected());
      this.#strand();
    }
    return this.takeEvents();
  }

  /**
   * Take a new session id, because another client uses the old one; only between connections.
   *
   * Mutations that were sent without an answer cannot be sent again under another name: they resolve as
   * `outcome_unknown`.
   */
  renew(session: Uint8Array): ClientEvent[] {
    this.#name = session;
    const unsure = this.#requests.unsure();
    this.#show();
    this.#tell(...unsure);
    return this.takeEvents();
  }

  /** Do what is due at a monotonic time; call it at least four times a heartbeat. */
  tick(nowMs: number): ClientEvent[] {
    const due = this.#state === "idle" ? undefined : this.#heartbeat.tick(nowMs);
    if (due === "ping" && this.#state === "open") {
      this.#send([6, ++this.#pings]);
    }
    return due === "lost" ? [{ type: "PeerSilent" }] : [];
  }

  /** Take one frame apart and apply it. Throws `ProtocolError`: then nothing of the frame was applied. */
  receive(frame: Uint8Array): ClientEvent[] {
    try {
      const message = decodeServerMessage(frame);
      this.#heartbeat.heard = true;
      if (this.#state !== "open" && message.type !== "Welcome" && message.type !== "FatalError") {
        throw new ProtocolError(`unexpected ${message.type} before Welcome`);
      }
      this.#told(message);
      return this.takeEvents();
    } catch (error) {
      if (error instanceof ProtocolError) {
        for (const query of this.#screen.queries.values()) {
          query.digest = null;
        }
      }
      throw error;
    }
  }

  // ----------------------------------------------------------------------------------- what the server says

  #told(message: ServerMessage): void {
    switch (message.type) {
      case "Transition":
        return this.#transition(message);
      case "MutationAnswer":
        return this.#mutationAnswer(message);
      case "ActionAnswer": {
        const outcome = outcomeOf(message);
        return this.#tell(this.#requests.resolve(this.#requests.asked(message), outcome));
      }
      case "ActionPiece":
        return this.#piece(message);
      case "Welcome":
        return this.#welcome(message);
      case "AuthError": {
        const refused = this.#identity.refused(message.base, this.#version.identity);
        return this.#tell({
          type: refused ? "AuthenticationFailed" : "IdentityLost",
          message: message.message,
        });
      }
      case "FatalError": {
        const error = errorFrom(message.error);
        return this.#tell({ type: "Fatal", error, reconnect: !FINAL_CODES.has(error.code) });
      }
      case "Ping":
        return this.#send([7, message.nonce]);
      case "Pong":
        return;
    }
  }

  #welcome({ version, incarnation, ts, frameLimitBytes, heartbeatMs, window }: Welcome): void {
    if (this.#state !== "greeting") {
      throw new ProtocolError("unexpected Welcome");
    }
    if (!VERSIONS.includes(version)) {
      throw new ProtocolError(`unexpected version ${version}`, "unsupported_version");
    }
    if (frameLimitBytes < CONNECT_FRAME_BYTES || heartbeatMs === 0) {
      throw new ProtocolError(`unexpected limits ${frameLimitBytes}, ${heartbeatMs}`);
    }
    this.#state = "open";
    this.#incarnation = incarnation;
    this.#toldTs = Math.max(this.#toldTs, ts);
    this.#serverStreams = !!window; // a server that says nothing of streams knows none
    this.#querySet.frameLimitBytes = frameLimitBytes;
    this.#heartbeat = new Heartbeat(heartbeatMs);
    this.#tell({ type: "Opened" });
    this.#resume();
  }

  /**
   * Bring the new connection to where the last one was: identity, query set, requests, in this order.
   *
   * Before that goes what was called while nobody was signed in. What the present user has called waits for the
   * verdict on their token.
   */
  #resume(): void {
    this.#requests.connected();
    this.#sendOutstanding(({ signIn }) => signIn !== this.#identity.signIn);
    this.#identity.resume();
    this.#querySet.resume(this.#screen.queries);
    this.#resumed = this.#querySet.number;
    if (this.#identity.isReady) {
      this.#sendOutstanding();
    } else {
      this.#requests.hold();
    }
  }

  /** Send those of the requests that this connection has not carried, unless they are too large for it. */
  #sendOutstanding(of: (request: Request) => boolean = () => true): void {
    for (const request of this.#requests.outstanding().filter(of)) {
      const frame = this.#frameOf(request);
      const refusal = this.#querySet.refusal(frame.length);
      if (refusal === undefined) {
        this.#sendRequest(request, frame);
      } else {
        this.#drop(request, refusal);
      }
    }
  }

  /** End the calls of users who are not this client's any more, unless the connection carries them. */
  #strand(): void {
    const stranded = this.#requests.stranded(this.#identity.signIn);
    for (const [request, error] of stranded) {
      this.#drop(request, error);
    }
    if (stranded.length > 0 && this.#behind && this.#state === "open") {
      this.#settle();
    }
  }

  /** End a call without a result. */
  #drop(request: Request, error: HeadwaterError): void {
    const gone = this.#requests.resolve(request, { error });
    if (request.update) {
      this.#show();
    }
    this.#tell(gone);
  }

  #transition({ start, end, changes }: Transition): void {
    const sent = { querySet: this.#querySet.number, identity: this.#identity.asked };
    checkStep(start, end, this.#version, this.#lastTs, sent);
    const updates = new Map<number, () => void>();
    for (const { query: number, body } of changes) {
      if (updates.has(number) || number === 0 || number >= this.#nextQuery) {
        throw new ProtocolError(`unexpected query ${number}`);
      }
      const query = this.#screen.queries.get(number);
      const outcome = query?.outcomeOf(number, body);
      updates.set(number, () => query && this.#screen.apply(number, query, body, outcome)); // else it was removed
    }
    const verdict = end.identity > start.identity;
    if (verdict && this.#identity.accepted(end.identity)) {
      this.#tell({ type: "IdentityChanged" });
    }
    for (const apply of updates.values()) {
      apply();
    }
    this.#version = end;
    this.#toldTs = Math.max(this.#toldTs, end.ts);
    if (end.querySet >= this.#resumed) {
      this.#lastTs = end.ts; // else some values are still those of the last connection
    }
    if (verdict && this.#identity.isReady) {
      this.#sendOutstanding();
    }
    this.#settle();
  }

  /**
   * Show what has arrived, all of one moment, and resolve the mutations that it covers, in one step.
   *
   * Not while it is of no one moment, nor while a mutation that an earlier connection carried is in doubt: the
   * results may have its change already, and its update would show it again. The answer to a resend tells a ts
   * that its commit is not behind, so the results that reach it decide.
   */
  #settle(): void {
    this.#behind = this.#version.querySet < this.#resumed || this.#requests.inDoubt(this.#lastTs);
    if (this.#behind) {
      return this.#resolve();
    }
    this.#shownTs = this.#lastTs;
    const covered = this.#requests.covered(this.#shownTs);
    this.#screen.settle(this.#requests.updates());
    this.#tell({ type: "Moved", ts: this.#shownTs }, ...covered);
  }

  /** Resolve the mutations that what is shown covers already. */
  #resolve(): void {
    const covered = this.#requests.covered(this.#shownTs);
    if (covered.length > 0) {
      this.#show();
      this.#tell(...covered);
    }
  }

  #mutationAnswer(answer: MutationAnswer): void {
    const { value, error } = outcomeOf(answer);
    const request = this.#requests.asked(answer);
    if (error === undefined) {
      request.waits = false;
      request.success = { ts: answer.ts, value };
    } else {
      this.#drop(request, error);
    }
    if (this.#behind) {
      this.#settle();
    } else {
      this.#resolve();
    }
  }

  #piece(piece: ActionPiece): void {
    const { number, left } = this.#requests.asked(piece);
    const value = decodeValue(piece.content);
    if (!left) {
      this.#tell({ type: "PieceArrived", request: number, value, size: piece.content.length });
    }
  }

  // ------------------------------------------------------------------------------------------------ frames

  #frameOf(request: Request): Uint8Array {
    return requestFrame(request, this.#requests.answeredBelow(request), this.#toldTs);
  }

  #send(message: ClientMessage): void {
    this.#querySet.send(encodeMessage(message));
  }

  #sendRequest(request: Request, frame: Uint8Array): void {
    request.resent = isSent(request);
    request.sentTs ??= this.#toldTs;
    request.waits = true;
    this.#querySet.send(frame);
  }
}
