/** Signs in at the accounts of a bundle and keeps the tokens: what `setAuth` and `HeadwaterProviderWithAuth` ask. */

import { httpAddress } from "../address.js";
import { ApplicationError, errorFor, HeadwaterError } from "../errors.js";

/** Where the refresh token is kept, as `localStorage`. Whoever can read it is signed in. */
export interface TokenStorage {
  getItem(key: string): string | null;
  setItem(key: string, value: string): void;
  removeItem(key: string): void;
}

export interface AccountOptions {
  /** Below which the routes of the accounts are; `/http/auth` unless the bundle says otherwise. */
  readonly path?: string;
  /** `localStorage` where there is one, so that all windows share a sign-in; else memory. */
  readonly storage?: TokenStorage;
}

interface Tokens {
  readonly access_token: string;
  readonly expires_in: number;
  readonly refresh_token: string;
}

const LEEWAY_MS = 30_000; // a token that ends sooner is not handed out any more
const PAUSES_MS = [200, 500, 1_000, 2_000, 5_000, 10_000];
const TIMEOUT_MS = 15_000;
const HOPELESS = new Set(["invalid_request", "unknown_function"]); // there are no accounts at this address

/** One user's sign-in. Its methods may be handed on by themselves: they are the same functions for its whole life. */
export class AccountClient {
  readonly #address: string;
  readonly #key: string;
  readonly #storage: TokenStorage;
  readonly #flows = inMemoryUnless(() => globalThis.sessionStorage);
  readonly #listeners = new Set<() => void>();
  #access: { readonly token: string; readonly endsMs: number; readonly shown: string } | undefined;
  #refreshing: Promise<string | null> | undefined; // while an answer is waited for

  /** `url` is where the server is: `https://host`, `http://host:port`, or the same with wss and ws. */
  constructor(
    url: string,
    { path = "/http/auth", storage = inMemoryUnless(() => globalThis.localStorage) }: AccountOptions = {},
  ) {
    this.#address = httpAddress(url) + path;
    this.#key = `headwater ${this.#address}`;
    this.#storage = storage;
    globalThis.addEventListener?.("storage", (event) => {
      if ((event as StorageEvent).key === this.#key) {
        this.#changed(); // another window has signed in or out, or has another token
      }
    });
  }

  /** Whether there is a session, as far as is known here. */
  readonly isSignedIn = (): boolean => this.#storage.getItem(this.#key) !== null;

  /** Have a function called when that may be another; returns what ends it. */
  readonly subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  };

  /** Make an account with a name and a password, where accounts have no mail. Rejects with `taken` in its data. */
  async signUp(name: string, password: string): Promise<void> {
    this.#take(await this.#post<Tokens>("sign-up", { email: name, password }));
  }

  /** Sign in with a password, and choose another one if it is given. Rejects with code `unauthenticated`. */
  async signIn(email: string, password: string, newPassword?: string): Promise<void> {
    const more = newPassword === undefined ? {} : { new_password: newPassword };
    this.#take(await this.#post<Tokens>("password", { email, password, ...more }));
  }

  /** Have a one-time code sent; returns what `redeem` needs beside it. Keep that in the browser that has asked. */
  async requestCode(email: string): Promise<string> {
    return (await this.#post<{ readonly request: string }>("code", { email })).request;
  }

  /** Sign in with a one-time code, and choose a password if one is given, which ends all other sessions. */
  async redeem(request: string, code: string, password?: string): Promise<void> {
    const more = password === undefined ? {} : { password };
    this.#take(await this.#post<Tokens>("redeem", { request, code, ...more }));
  }

  /** Send the browser to another provider, which sends it back to a page of yours; there, call `finish`. */
  async startWith(
    provider: string,
    redirectUri: string,
    open: (address: string) => void = (address) => location.assign(address),
  ): Promise<void> {
    const asked = { provider, redirect_uri: redirectUri };
    const { url, flow } = await this.#post<{ readonly url: string; readonly flow: string }>(
      "oauth/start",
      asked,
    );
    this.#flows.setItem(this.#key, flow);
    open(url);
  }

  /**
   * Sign in with what a provider has sent the browser back with, and take it out of the address; whether there was any.
   * Rejects with code `unauthenticated` if the provider has not signed the user in, or for another browser.
   */
  async finish(address: string = location.href): Promise<boolean> {
    const page = new URL(address);
    const [state, code, iss] = ["state", "code", "iss"].map((name) => page.searchParams.get(name));
    const flow = this.#flows.getItem(this.#key);
    if (state == null || flow === null) {
      return false;
    }
    this.#flows.removeItem(this.#key);
    if (address === globalThis.location?.href) {
      history.replaceState(history.state, "", page.pathname);
    }
    if (code == null) {
      const why = page.searchParams.get("error") ?? "it gave no reason";
      throw new HeadwaterError("unauthenticated", `the provider has not signed you in: ${why}`);
    }
    const asked = { flow, state, code, ...(iss == null ? {} : { iss }) };
    this.#take(await this.#post<Tokens>("oauth/finish", asked));
    return true;
  }

  /** End the session, or all of the account. Nobody is signed in here from now on, whether the server is reached or not. */
  async signOut({ everywhere = false } = {}): Promise<void> {
    const shown = this.#storage.getItem(this.#key);
    this.#forget();
    if (shown !== null) {
      await this.#post("sign-out", { refresh_token: shown, everywhere });
    }
  }

  /**
   * Return an access token, null if nobody is signed in: for `client.setAuth`.
   *
   * Waits for a server that cannot be reached: to give up would sign the user out.
   */
  readonly fetchToken = ({ forceRefresh }: { readonly forceRefresh: boolean }): Promise<string | null> => {
    const kept = this.#access;
    if (
      !forceRefresh &&
      kept &&
      kept.shown === this.#storage.getItem(this.#key) &&
      Date.now() < kept.endsMs
    ) {
      return Promise.resolve(kept.token);
    }
    this.#refreshing ??= this.#alone(() => this.#refreshed()).finally(() => {
      this.#refreshing = undefined;
    });
    return this.#refreshing;
  };

  async #refreshed(): Promise<string | null> {
    for (let tries = 0; ; tries++) {
      const shown = this.#storage.getItem(this.#key);
      if (shown === null) {
        return null;
      }
      try {
        const told = await this.#post<Tokens>("refresh", { refresh_token: shown });
        if (this.#storage.getItem(this.#key) === shown) {
          this.#take(told); // else somebody has signed in or out meanwhile, or another window was faster
          return told.access_token;
        }
      } catch (error) {
        if (!(error instanceof HeadwaterError) || HOPELESS.has(error.code)) {
          throw error;
        }
        if (error.code === "unauthenticated") {
          if (this.#storage.getItem(this.#key) === shown) {
            this.#forget();
          }
        } else {
          await new Promise((resolve) => setTimeout(resolve, PAUSES_MS[tries] ?? PAUSES_MS.at(-1)));
        }
      }
    }
  }

  /** Refresh in one window at a time, where the runtime can see to that: the next one finds the newest token. */
  #alone(refresh: () => Promise<string | null>): Promise<string | null> {
    const locks = globalThis.navigator?.locks;
    return locks ? locks.request(this.#key, refresh) : refresh();
  }

  #take({ access_token, expires_in, refresh_token }: Tokens): void {
    this.#storage.setItem(this.#key, refresh_token);
    const endsMs = Date.now() + expires_in * 1000 - LEEWAY_MS;
    this.#access = { token: access_token, endsMs, shown: refresh_token };
    this.#changed();
  }

  #forget(): void {
    this.#storage.removeItem(this.#key);
    this.#access = undefined;
    this.#changed();
  }

  #changed(): void {
    for (const listener of this.#listeners) {
      listener();
    }
  }

  async #post<T>(what: string, fields: Readonly<Record<string, unknown>>): Promise<T> {
    const address = `${this.#address}/${what}`;
    let response: Response;
    let content: unknown;
    try {
      response = await fetch(address, {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify(fields),
        cache: "no-store",
        credentials: "omit",
        redirect: "error",
        signal: AbortSignal.timeout(TIMEOUT_MS),
      });
      content = response.status === 204 ? {} : await response.json().catch(() => undefined);
    } catch (error) {
      throw new HeadwaterError("connection_lost", `no answer from ${address}: ${String(error)}`);
    }
    if (response.ok && typeof content === "object") {
      return content as T;
    }
    throw errorOf(content, `${address} answers ${response.status}`);
  }
}

/** Return the error of an answer; what only accounts answer is one of the application. */
function errorOf(content: unknown, otherwise: string): HeadwaterError {
  const { code, message = "", retry_after_s = null } = Object(content) as Record<string, unknown>;
  if (code === "taken") {
    return new ApplicationError({ code }, String(message));
  }
  if (code === "rate_limited") {
    return new HeadwaterError(code, String(message), { retry_after_s: Number(retry_after_s) });
  }
  return typeof code === "string"
    ? errorFor(code, String(message))
    : new HeadwaterError("internal_error", otherwise);
}

/** Return a storage of the browser, or memory where there is none, or none that may be used. */
function inMemoryUnless(storageOf: () => TokenStorage | undefined): TokenStorage {
  const kept = new Map<string, string>();
  try {
    const storage = storageOf();
    if (storage) {
      return storage;
    }
  } catch {
    // what the user has forbidden throws
  }
  return {
    getItem: (key) => kept.get(key) ?? null,
    setItem: (key, value) => void kept.set(key, value),
    removeItem: (key) => void kept.delete(key),
  };
}
