/** Keeps a client signed in: fetches tokens, and another one when the server refuses one or before it runs out. */

import type { Environment } from "./environment.js";

/** Returns a token of the sign-in service, null if nobody is signed in. `forceRefresh`: not one kept from before. */
export type FetchToken = (how: { forceRefresh: boolean }) => Promise<string | null | undefined>;

const TRIES_MAX = 2; // fresh tokens that the server may refuse before the client gives up
const LEEWAY_MS = 30_000; // a token is replaced so long before it runs out

/** Is told whether somebody is signed in; while that is not so, whether another token is on its way. */
export type AuthChange = (authenticated: boolean, isRefreshing: boolean) => void;

/** Hands a token to the session; `refresh`: another one for the same user. */
type Ask = (token: string | null, refresh: boolean) => void;

export class Authentication {
  readonly #environment: Environment;
  readonly #ask: Ask;
  readonly #ready: () => void;
  #fetchToken: FetchToken | undefined; // another function for each sign-in, undefined while there is none
  #onChange: AuthChange = () => {};
  #token: string | null = null; // what the server was last asked to accept for this sign-in
  #told: boolean | undefined; // what `onChange` was last told for certain
  #refused = 0; // fresh tokens since one was accepted
  #fetching = false;
  #first = false;
  #asked = false; // the server was asked for an identity once, so that none has to be asked for too
  #forgetRefresh = (): void => {};

  /** `ask` hands a token to the session; `ready` is called when a fetch is over that `holds` told of. */
  constructor(environment: Environment, ask: Ask, ready: () => void) {
    this.#environment = environment;
    this.#ask = ask;
    this.#ready = ready;
  }

  /** Whether the first token is being fetched: what is asked before it is there would be asked by nobody. */
  get holds(): boolean {
    return this.#first;
  }

  /** Sign in with tokens of `fetchToken`. */
  set(fetchToken: FetchToken, onChange: AuthChange): void {
    this.close();
    this.#fetchToken = (how) => fetchToken(how);
    this.#onChange = onChange;
    this.#told = undefined;
    this.#refused = 0;
    this.#fetching = false;
    this.#first = true;
    void this.#fetch(false);
  }

  /** Sign out. */
  clear(): void {
    this.close();
    this.#ended();
    this.#hand(null, false);
  }

  /** The server has accepted what it was asked for. */
  accepted(): void {
    if (this.#token !== null) {
      this.#refused = 0;
      this.#tell(true);
    }
  }

  /** The server has refused what it was asked for. */
  refused(): void {
    if (this.#token === null) {
      return;
    }
    if (this.#refused++ < TRIES_MAX) {
      void this.#fetch(true);
    } else {
      this.#signOut();
    }
  }

  /** The token that held does so no more. */
  lost(): void {
    if (this.#token !== null) {
      this.#tell(false, true);
      void this.#fetch(true);
    }
  }

  /** Nothing is asked any more. */
  close(): void {
    this.#forgetRefresh();
    this.#fetchToken = undefined;
    this.#token = null;
  }

  async #fetch(forceRefresh: boolean): Promise<void> {
    const fetchToken = this.#fetchToken;
    if (!fetchToken || this.#fetching) {
      return; // what comes is asked for
    }
    this.#fetching = true;
    this.#forgetRefresh();
    let token: string | null | undefined;
    try {
      token = await fetchToken({ forceRefresh });
    } catch (error) {
      this.#environment.log("fetchToken failed", error);
    }
    if (this.#fetchToken !== fetchToken) {
      return; // another call has taken its place meanwhile
    }
    this.#fetching = false;
    if (token == null) {
      this.#signOut();
    } else {
      const refresh = this.#token !== null && mayBeOfOneUser(this.#token, token);
      this.#token = token;
      this.#planRefresh(token);
      this.#hand(token, refresh);
    }
    this.#ended();
  }

  #signOut(): void {
    this.#token = null;
    this.#hand(null, false);
    this.#tell(false);
  }

  #hand(token: string | null, refresh: boolean): void {
    if (token !== null || this.#asked) {
      this.#asked = true;
      this.#ask(token, refresh);
    }
  }

  #tell(authenticated: boolean, isRefreshing = false): void {
    const told = isRefreshing ? undefined : authenticated;
    if (this.#told !== told) {
      this.#told = told;
      this.#onChange(authenticated, isRefreshing);
    }
  }

  #ended(): void {
    if (this.#first) {
      this.#first = false;
      this.#ready();
    }
  }

  #planRefresh(token: string): void {
    const end = claimsOf(token).exp;
    if (typeof end === "number") {
      const delayMs = Math.max(end * 1000 - this.#environment.wallMs() - LEEWAY_MS, LEEWAY_MS);
      this.#forgetRefresh = this.#environment.later(delayMs, () => void this.#fetch(true));
    }
  }
}

/** Whether nothing says that two tokens are of two users: the sign-in service may know somebody else meanwhile. */
function mayBeOfOneUser(one: string, other: string): boolean {
  const [before, after] = [claimsOf(one), claimsOf(other)];
  return before.iss === after.iss && before.sub === after.sub;
}

/** Return what a JWT claims, unverified; nothing if it is none. */
function claimsOf(token: string): { iss?: unknown; sub?: unknown; exp?: unknown } {
  try {
    return Object(JSON.parse(atob((token.split(".")[1] ?? "").replace(/-/g, "+").replace(/_/g, "/"))));
  } catch {
    return {};
  }
}
