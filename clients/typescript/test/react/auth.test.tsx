// @vitest-environment jsdom

import { render } from "@testing-library/react";
import { StrictMode, useEffect } from "react";
import { afterAll, afterEach, beforeAll, expect, test, vi } from "vitest";
import { WebSocket } from "ws";
import type { FetchToken, HeadwaterClient } from "../../src/index.js";
import {
  Authenticated,
  AuthLoading,
  type AuthOfService,
  HeadwaterProviderWithAuth,
  Unauthenticated,
  useHeadwater,
  useHeadwaterAuth,
  useQuery,
} from "../../src/react/index.js";
import { api } from "../support/bundle.js";
import { Daemon } from "../support/daemon.js";
import { act, cleanup, until } from "./rendering.js";

let daemon: Daemon;
beforeAll(async () => {
  daemon = await Daemon.start("web");
});
afterAll(() => daemon.end());
afterEach(cleanup);

/** Takes tokens without a server. Tells what was called, in order. */
class Tokens {
  readonly calls: string[] = [];
  private onChange: (authenticated: boolean) => void = () => {};

  setAuth(_fetchToken: FetchToken, onChange: (authenticated: boolean) => void): void {
    this.calls.push("set");
    this.onChange = onChange;
  }

  clearAuth(): void {
    this.calls.push("clear");
  }

  answer(authenticated: boolean): void {
    act(() => this.onChange(authenticated));
  }
}

const fetchAccessToken: FetchToken = async () => "token";

function Page() {
  return (
    <>
      <AuthLoading>loading</AuthLoading>
      <Unauthenticated>signed out</Unauthenticated>
      <Authenticated>signed in</Authenticated>
    </>
  );
}

function pageOver(client: unknown, service: Omit<AuthOfService, "fetchAccessToken">) {
  return (
    <StrictMode>
      <HeadwaterProviderWithAuth
        client={client as HeadwaterClient}
        useAuth={() => ({ ...service, fetchAccessToken })}
      >
        <Page />
      </HeadwaterProviderWithAuth>
    </StrictMode>
  );
}

test("what is shown follows the service and what the server has accepted", () => {
  const tokens = new Tokens();
  const { container, rerender, unmount } = render(
    pageOver(tokens, { isLoading: true, isAuthenticated: false }),
  );
  expect(container.textContent).toBe("loading");
  rerender(pageOver(tokens, { isLoading: false, isAuthenticated: false }));
  expect(container.textContent).toBe("signed out");
  expect(tokens.calls).toEqual([]);
  rerender(pageOver(tokens, { isLoading: false, isAuthenticated: true }));
  expect(container.textContent).toBe("loading");
  expect(tokens.calls.at(-1)).toBe("set");
  tokens.answer(true);
  expect(container.textContent).toBe("signed in");
  tokens.answer(false); // the server refused a later one
  expect(container.textContent).toBe("signed out");
  tokens.answer(true);
  rerender(pageOver(tokens, { isLoading: false, isAuthenticated: false }));
  expect(container.textContent).toBe("signed out");
  expect(tokens.calls.at(-1)).toBe("clear");
  rerender(pageOver(tokens, { isLoading: false, isAuthenticated: true }));
  expect(container.textContent, "nothing is left of the time before").toBe("loading");
  unmount();
  expect(tokens.calls.at(-1)).toBe("clear");
  tokens.answer(true);
});

test("signing in comes before what the components below do", () => {
  const tokens = new Tokens();
  function Asks() {
    const client = useHeadwater();
    useEffect(() => {
      tokens.calls.push(client === (tokens as unknown) ? "ask" : "ask another");
    }, [client]);
    return null;
  }
  render(
    <HeadwaterProviderWithAuth
      client={tokens as unknown as HeadwaterClient}
      useAuth={() => ({ isLoading: false, isAuthenticated: true, fetchAccessToken })}
    >
      <Asks />
    </HeadwaterProviderWithAuth>,
  );
  expect(tokens.calls).toEqual(["set", "ask"]);
});

test("a daemon that accepts no token leaves one signed out, with the queries going on", async () => {
  const client = daemon.client("daemon", { webSocket: WebSocket });
  const forced: boolean[] = [];
  const fetched: FetchToken = async ({ forceRefresh }) => {
    forced.push(forceRefresh);
    return "token";
  };
  function Rows() {
    return `, ${useQuery(api.rows.listed, { board: "auth" })?.length ?? "loading"} rows`;
  }
  const { container } = render(
    <HeadwaterProviderWithAuth
      client={client}
      useAuth={() => ({ isLoading: false, isAuthenticated: true, fetchAccessToken: fetched })}
    >
      <Page />
      <Rows />
    </HeadwaterProviderWithAuth>,
  );
  expect(container.textContent).toBe("loading, loading rows");
  await until(
    () => container.textContent === "signed out, 0 rows",
    () => container.textContent ?? "",
  );
  expect(forced).toEqual([false, true, true]);
});

test("who may sign in is known below the provider alone", () => {
  function Asks() {
    return String(useHeadwaterAuth().isLoading);
  }
  const quiet = vi.spyOn(console, "error").mockImplementation(() => {});
  expect(() => render(<Asks />)).toThrow("HeadwaterProviderWithAuth");
  quiet.mockRestore();
});
