/**
 * The client: live queries, mutations and actions over one connection that mends itself.
 *
 * The protocol is `session.ts`, which is pure; this module gives it a connection and keeps who waits for what.
 */

import { ActionStream } from "./actionStream.js";
import { syncAddress } from "./address.js";
import { type AnyReference, type Args, functionName, type Given, pageArgument, type Returns } from "./api.js";
import { type AuthChange, Authentication, type FetchToken } from "./authentication.js";
import { Calls } from "./calls.js";
import { Connection } from "./connection.js";
import { type ConnectionState, sameState } from "./connectionState.js";
import { type Environment, runtimeEnvironment, type SocketConstructor } from "./environment.js";
import { HeadwaterError } from "./errors.js";
import type { ClientEvent } from "./events.js";
import { followed } from "./followers.js";
import { SESSION_BYTES } from "./limits.js";
import { LocalStore } from "./localStore.js";
import { PageChain, type PagedQuery, type PagedQueryArgs, type PagedWatch, type PageOf } from "./pages.js";
import { called } from "./query.js";
import { ClientSession } from "./session.js";
import { type Listener, resultOf, Subscriptions } from "./subscriptions.js";
import { canonicalBytes } from "./values.js";
import { VERSION } from "./version.js";
import type { Update } from "./view.js";

const IN_FLIGHT_MAX = 1_000;
const STREAM_WINDOW_BYTES = 64 * 1024;

export interface ClientOptions {
  /** Makes WebSockets where the runtime has none, as Node.js 20: that of the package `ws`. */
  readonly webSocket?: SocketConstructor;
  /** Mutations and actions without an answer at a time; calls beyond them wait. 1,000 by default, and at most. */
  readonly inFlightMax?: number;
  /** Takes what no caller is told; the console by default. */
  readonly log?: (message: string, error?: unknown) => void;
}

/** A live query, to look at and to follow. */
export interface Watch<R> {
  /** Call `callback` whenever there is another result; return what ends that. The query is live while somebody follows it. */
  onUpdate(callback: () => void): () => void;
  /** Return the present result; undefined while there is none. Throws the query's error. The same object until it changes. */
  localResult(): R | undefined;
}

export interface MutationOptions<F> {
  /**
   * Shows the change at once, until the server's results do or the mutation fails. It is run again over every
   * new result, so it depends on nothing but `store` and `args`.
   */
  readonly optimisticUpdate?: (store: LocalStore, args: Args<F>) => void;
}

/**
 * A client of one server. It connects with its first use, and goes on where it was after a lost connection:
 * queries get what they missed, mutations without an answer are sent again and take effect once.
 */
export class HeadwaterClient {
  readonly #environment: Environment;
  readonly #session: ClientSession;
  readonly #connection: Connection;
  readonly #subscriptions: Subscriptions;
  readonly #authentication: Authentication;
  readonly #calls: Calls;
  readonly #chains = new Set<PageChain>(); // of which a page has changed in the present step
  readonly #stateListeners = new Set<(state: ConnectionState) => void>();
  readonly #events: ClientEvent[] = [];
  #dispatching = false;
  #state: ConnectionState;

  /**
   * `address` is `wss://host`, `ws://host:port` or the same with https and http. Throws `invalid_request` if it
   * is none, or an option is out of its bounds.
   */
  constructor(address: string, options: ClientOptions = {}) {
    this.#environment = runtimeEnvironment(options);
    this.#session = new ClientSession(
      this.#environment.randomBytes(SESSION_BYTES),
      `headwater-typescript ${VERSION}`,
    );
    this.#connection = new Connection(
      syncAddress(address),
      this.#session,
      this.#environment,
      (events) => this.#dispatch(events),
      () => this.#changed(),
      (error) => {
        this.#calls.end(error);
        this.#dispatch(this.#subscriptions.failures(error));
      },
    );
    const { inFlightMax = IN_FLIGHT_MAX } = options;
    if (!(inFlightMax >= 1)) {
      throw new HeadwaterError("invalid_request", "expected an inFlightMax of 1 or more");
    }
    this.#calls = new Calls(
      this.#session,
      Math.min(inFlightMax, IN_FLIGHT_MAX),
      this.#environment.wallMs,
      () => this.#act(),
      () => this.#changed(),
    );
    this.#subscriptions = new Subscriptions(this.#session);
    this.#authentication = new Authentication(
      this.#environment,
      (token, refresh) => {
        this.#session.authenticate(token, refresh);
        this.#act();
      },
      () => this.#act(),
    );
    this.#state = this.#look();
  }

  // ------------------------------------------------------------------------------------------------ calls

  /**
   * Return a query's result, at one moment not before this call. It is the server's: optimistic updates do not
   * show in it. Rejects with what the query fails with.
   */
  async query<F extends AnyReference<"query">>(query: F, ...[args]: Given<F>): Promise<Returns<F>> {
    return this.#calls.ask(...called(query, args)) as Promise<Returns<F>>;
  }

  /**
   * Run a mutation and return its result. It is committed, and seen by this client's queries, then.
   *
   * Mutations of a client run in the order of their calls. One whose answer is lost with the connection is sent
   * again and takes effect once. Rejects with code `outcome_unknown` or `connection_lost` if it may or may not
   * have taken effect: the client was closed before the answer came, or away for so long that the server has
   * forgotten it. Every other error says that it had no effect.
   */
  async mutation<F extends AnyReference<"mutation">>(
    mutation: F,
    ...given: [...Given<F>, options?: MutationOptions<F>]
  ): Promise<Returns<F>> {
    const [args, options] = given as unknown as [args?: Args<F>, options?: MutationOptions<F>];
    const [name, packed] = called(mutation, args);
    const optimisticUpdate = options?.optimisticUpdate;
    const update: Update | undefined =
      optimisticUpdate && ((view) => optimisticUpdate(new LocalStore(view), (args ?? {}) as Args<F>));
    return this.#calls.request("mutation", () => this.#session.mutate(name, packed, update)) as Promise<
      Returns<F>
    >;
  }

  /**
   * Run an action and return its result. It is never sent twice: rejects with code `connection_lost` if the
   * connection ends before the answer.
   */
  async action<F extends AnyReference<"action">>(action: F, ...[args]: Given<F>): Promise<Returns<F>> {
    const [name, packed] = called(action, args);
    return this.#calls.request("action", () => this.#session.act(name, packed)) as Promise<Returns<F>>;
  }

  /**
   * Take the pieces of an action that streams: `for await (const word of client.stream(api.answers.words, { text }))`.
   *
   * The loop throws what the action fails with behind the pieces that came before; code `connection_lost` if the
   * connection ends meanwhile. Leaving it cancels the action.
   */
  stream<F extends AnyReference<"stream">>(stream: F, ...[args]: Given<F>): ActionStream<Returns<F>> {
    const [name, packed] = called(stream, args);
    let number = 0;
    return new ActionStream<Returns<F>>(
      (pieces) =>
        this.#calls.request(
          "action",
          () => {
            if (pieces.over) {
              throw new HeadwaterError("cancelled", "it was cancelled before it was sent");
            }
            number = this.#session.act(name, packed, STREAM_WINDOW_BYTES);
            return number;
          },
          (value, size) => pieces.put(value as Returns<F>, size),
        ),
      (size) => {
        this.#session.take(number, size);
        this.#act();
      },
      () => {
        this.#session.leave(number);
        this.#act();
      },
    );
  }

  // ---------------------------------------------------------------------------------------------- queries

  /** Look at a query's results as they change. */
  watch<F extends AnyReference<"query">>(query: F, ...[args]: Given<F>): Watch<Returns<F>> {
    const [name, packed] = called(query, args);
    return {
      onUpdate: (callback) => this.#follow(name, packed, callback),
      localResult: () => resultOf(this.#subscriptions.outcome(name, packed)) as Returns<F> | undefined,
    };
  }

  /**
   * Look at a query page by page, all loaded pages as one list. They are live, without gaps and doubles while
   * rows come and go; one that has grown too large is split.
   *
   * The function takes `PageOptions` and returns a `Page`; `args` are its other arguments. A page that is loaded has
   * `initialNumItems` rows, unless `loadMore` is told otherwise.
   */
  paginate<F extends PagedQuery>(
    query: F,
    args: PagedQueryArgs<F>,
    { initialNumItems }: { readonly initialNumItems: number },
  ): PagedWatch<PageOf<F>> {
    const [name, argument] = [functionName(query), pageArgument(query)];
    const given: object = args;
    return new PageChain(
      initialNumItems,
      (asked, changed) => {
        const packed = canonicalBytes({ ...given, [argument]: asked });
        const unfollow = this.#follow(name, packed, changed, true);
        return { unfollow, outcome: () => this.#subscriptions.outcome(name, packed) };
      },
      (chain) => this.#chains.add(chain),
      () => this.#dispatch([]),
    ) as PagedWatch<unknown> as PagedWatch<PageOf<F>>;
  }

  #follow(name: string, packed: Uint8Array, listener: Listener, part = false): () => void {
    this.#calls.requireOpen();
    const unfollow = this.#subscriptions.follow(name, packed, listener, part);
    this.#act();
    return () => {
      unfollow();
      this.#act();
    };
  }

  // --------------------------------------------------------------------------------------------- identity

  /**
   * Sign in with tokens of `fetchToken`, which is called again when the server refuses one and before one runs
   * out. A client that has not connected yet waits for the first. `onChange` is told whether somebody is signed in,
   * and while that is not so, whether a fresh token is on its way because the last one does not hold any more.
   *
   * Calls that are made once a token is there are that user's: they wait until the server has accepted it, and
   * reject with code `unauthenticated` if it does not. Another `setAuth`, or `clearAuth`, is another user.
   */
  setAuth(fetchToken: FetchToken, onChange: AuthChange = () => {}): void {
    this.#calls.requireOpen();
    this.#authentication.set(fetchToken, (...told) => this.#guarded(() => onChange(...told)));
  }

  /** Sign out. */
  clearAuth(): void {
    this.#authentication.clear();
  }

  // ------------------------------------------------------------------------------------------- connection

  /** Return how the client stands; the same object until that changes. */
  connectionState(): ConnectionState {
    return this.#state;
  }

  /** Call `callback` whenever the client stands otherwise; return what ends that. */
  onConnectionState(callback: (state: ConnectionState) => void): () => void {
    return followed(this.#stateListeners, callback);
  }

  /** End the connection and everything that waits for it. May be called twice. */
  async close(): Promise<void> {
    this.#authentication.close();
    const closed = this.#connection.close();
    this.#calls.end(new HeadwaterError("unavailable", "the client is closed"));
    await closed;
  }

  // ------------------------------------------------------------------------------------------- what waits

  /** Show and send what a call has changed. */
  #act(): void {
    this.#dispatch(this.#session.takeEvents());
    if (!this.#authentication.holds) {
      this.#connection.begin();
    }
    this.#connection.flush();
  }

  /** Take what the session tells, all of it before anybody is called: whoever is finds everything of one moment. */
  #dispatch(events: readonly ClientEvent[]): void {
    this.#events.push(...events);
    if (this.#dispatching) {
      return;
    }
    this.#dispatching = true;
    const told = new Set<Listener>();
    const settled: (() => void)[] = [];
    try {
      do {
        for (const event of this.#events.splice(0)) {
          this.#take(event, told, settled);
        }
        for (const chain of this.#chains) {
          this.#chains.delete(chain);
          for (const listener of chain.settle()) {
            told.add(listener);
          }
        }
      } while (this.#events.length > 0 || this.#chains.size > 0);
    } finally {
      this.#dispatching = false;
    }
    for (const call of [...told, ...settled]) {
      this.#guarded(call);
    }
  }

  #take(event: ClientEvent, told: Set<Listener>, settled: (() => void)[]): void {
    switch (event.type) {
      case "QueryChanged":
        settled.push(() => this.#calls.told(event.query, event.outcome));
        this.#subscriptions.put(event.query, event.outcome, told);
        break;
      case "Resolved":
        settled.push(() => this.#calls.resolved(event.request, event.outcome));
        break;
      case "PieceArrived":
        settled.push(() => this.#calls.arrived(event.request, event.value, event.size));
        break;
      case "UpdateFailed":
        this.#environment.log("an optimistic update failed", event.error);
        break;
      case "IdentityChanged":
        if (this.#session.signedIn) {
          settled.push(() => this.#authentication.accepted()); // else it was the user before, or nobody
        }
        break;
      case "AuthenticationFailed":
        settled.push(() => this.#authentication.refused());
        break;
      case "IdentityLost":
        settled.push(() => this.#authentication.lost());
        break;
      case "Opened":
      case "Moved":
      case "Fatal":
      case "PeerSilent":
        break; // the connection sees to them
    }
  }

  /** Call a listener; what it throws is not ours to handle, and must not keep others from being called. */
  #guarded(call: () => void): void {
    try {
      call();
    } catch (error) {
      this.#environment.log("a listener failed", error);
    }
  }

  #changed(): void {
    const state = this.#look();
    if (!sameState(state, this.#state)) {
      this.#state = state;
      for (const listener of this.#stateListeners) {
        this.#guarded(() => listener(state));
      }
    }
  }

  #look(): ConnectionState {
    const [connection, { count, oldest }] = [this.#connection, this.#calls];
    return Object.freeze({
      phase: connection.phase,
      isWebSocketConnected: connection.phase === "open",
      hasEverConnected: connection.opened > 0,
      connectionCount: connection.opened,
      connectionRetries: connection.attempt,
      inflightQueries: count.query,
      inflightMutations: count.mutation,
      inflightActions: count.action,
      hasInflightRequests: oldest !== null,
      timeOfOldestInflightRequest: oldest,
      lastProblem: connection.problem,
    });
  }
}
