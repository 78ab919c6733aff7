/** Keeps a client signed in: fetches tokens, and another one when the server refuses one or before it runs out. */

import type { Environment } from "./environment.js";

/** Returns a token of the sign-in service, null if nobody is signed in. `forceRefresh`: not one kept from before. */
export type FetchToken = (how: { forceRefresh: boolean }) => Promise<string | null | undefined>;

const TRIES_MAX = 2; // fresh tokens that the server may refuse before the client gives up
const LEEWAY_MS = 30_000; // a token is replaced so long before it runs out
const DELAY_MAX_MS = 2 ** 31 - 1; // of a timer

/** Is told whether somebody is signed in; while that is not so, whether another token is on its way. */
export type AuthChange = (authenticated: boolean, isRefreshing: boolean) => void;

/** Hands a token to the session; `refresh`: another one for the same user. */
type Ask = (token: string | null, refresh: boolean) => void;

/** What one call of `setAuth` stands for, until the next one. */
interface SignIn {
  readonly fetchToken: FetchToken;
  readonly onChange: AuthChange;
  /** What the server was last asked to accept. */
  token: string | null;
  /** Whether `onChange` was last told that somebody is signed in; undefined before it was told anything. */
  told: boolean | undefined;
  /** Fresh tokens that were refused since one was accepted. */
  refused: number;
  /** Whether a token is being fetched. */
  fetching: boolean;
}

export class Authentication {
  readonly #environment: Environment;
  readonly #ask: Ask;
  readonly #ready: () => void;
  #signIn: SignIn | undefined;
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
    this.#forgetRefresh();
    this.#signIn = { fetchToken, onChange, token: null, told: undefined, refused: 0, fetching: false };
    this.#first = true;
    void this.#fetch(this.#signIn, false);
  }

  /** Sign out. */
  clear(): void {
    this.#forgetRefresh();
    this.#signIn = undefined;
    this.#ended();
    this.#hand(null, false);
  }

  /** The server has accepted what it was asked for. */
  accepted(): void {
    const signIn = this.#signIn;
    if (signIn !== undefined && signIn.token !== null) {
      signIn.refused = 0;
      this.#tell(signIn, true);
    }
  }

  /** The server has refused what it was asked for. */
  refused(): void {
    const signIn = this.#signIn;
    if (signIn === undefined || signIn.token === null) {
      return;
    }
    if (signIn.refused++ < TRIES_MAX) {
      void this.#fetch(signIn, true);
    } else {
      this.#signOut(signIn);
    }
  }

  /** The token that held does so no more. */
  lost(): void {
    const signIn = this.#signIn;
    if (signIn !== undefined && signIn.token !== null) {
      this.#tell(signIn, false, true);
      void this.#fetch(signIn, true);
    }
  }

  /** Nothing is asked any more. */
  close(): void {
    this.#forgetRefresh();
    this.#signIn = undefined;
  }

  async #fetch(signIn: SignIn, forceRefresh: boolean): Promise<void> {
    if (signIn.fetching) {
      return; // what comes is asked for
    }
    signIn.fetching = true;
    this.#forgetRefresh();
    let token: string | null;
    try {
      token = (await signIn.fetchToken({ forceRefresh })) ?? null;
    } catch (error) {
      this.#environment.log("fetching a token failed", error);
      token = null;
    }
    signIn.fetching = false;
    if (this.#signIn !== signIn) {
      return; // another call has taken its place meanwhile
    }
    if (token === null) {
      this.#signOut(signIn);
    } else {
      const refresh = signIn.token !== null && mayBeOfOneUser(signIn.token, token);
      signIn.token = token;
      this.#hand(token, refresh);
      this.#planRefresh(signIn, token);
    }
    this.#ended();
  }

  #signOut(signIn: SignIn): void {
    signIn.token = null;
    this.#hand(null, false);
    this.#tell(signIn, false);
  }

  #hand(token: string | null, refresh: boolean): void {
    if (token !== null || this.#asked) {
      this.#asked = true;
      this.#ask(token, refresh);
    }
  }

  #tell(signIn: SignIn, authenticated: boolean, isRefreshing = false): void {
    const told = isRefreshing ? undefined : authenticated;
    if (signIn.told !== told) {
      signIn.told = told;
      signIn.onChange(authenticated, isRefreshing);
    }
  }

  #ended(): void {
    if (this.#first) {
      this.#first = false;
      this.#ready();
    }
  }

  #planRefresh(signIn: SignIn, token: string): void {
    const endMs = endOf(token);
    if (endMs !== undefined) {
      const delayMs = Math.max(endMs - this.#environment.wallMs() - LEEWAY_MS, LEEWAY_MS);
      this.#forgetRefresh = this.#environment.later(Math.min(delayMs, DELAY_MAX_MS), () => {
        void this.#fetch(signIn, true);
      });
    }
  }
}

/** Return when a JWT runs out; undefined if it does not say, or is none. */
function endOf(token: string): number | undefined {
  const end = claimsOf(token).exp;
  return typeof end === "number" ? end * 1000 : undefined;
}

/** Whether nothing says that two tokens are of two users: the sign-in service may know somebody else meanwhile. */
function mayBeOfOneUser(one: string, other: string): boolean {
  const [before, after] = [claimsOf(one), claimsOf(other)];
  return before.iss === after.iss && before.sub === after.sub;
}

/** Return what a JWT claims, unverified; nothing if it is none. */
function claimsOf(token: string): { iss?: unknown; sub?: unknown; exp?: unknown } {
  try {
    const payload: unknown = JSON.parse(
      atob((token.split(".")[1] ?? "").replace(/-/g, "+").replace(/_/g, "/")),
    );
    return typeof payload === "object" && payload !== null ? { ...payload } : {};
  } catch {
    return {};
  }
}
