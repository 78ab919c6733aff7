// @vitest-environment jsdom

import { render } from "@testing-library/react";
import { StrictMode } from "react";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { WebSocket } from "ws";
import { AccountClient } from "../../src/accounts/index.js";
import { type FunctionReference, makeApi } from "../../src/index.js";
import {
  Authenticated,
  HeadwaterProviderWithAuth,
  Unauthenticated,
  useAccountAuth,
  useQuery,
} from "../../src/react/index.js";
import { Daemon } from "../support/daemon.js";
import { act, cleanup, until } from "./rendering.js";

interface Api {
  auth: { whoami: FunctionReference<"query", Record<string, never>, string | null> };
}

const api = makeApi<Api>();

let daemon: Daemon;
beforeAll(async () => {
  daemon = await Daemon.start("accounts_plain");
});
afterAll(() => daemon.end());
afterEach(cleanup);

function Who() {
  return <>{useQuery(api.auth.whoami, {})}</>;
}

test("what is shown follows the account", async () => {
  const account = new AccountClient(daemon.addresses.daemon);
  const client = daemon.client("daemon", { webSocket: WebSocket as never });
  const { container } = render(
    <StrictMode>
      <HeadwaterProviderWithAuth client={client} useAuth={() => useAccountAuth(account)}>
        <Unauthenticated>nobody</Unauthenticated>
        <Authenticated>
          <Who />
        </Authenticated>
      </HeadwaterProviderWithAuth>
    </StrictMode>,
  );
  expect(container.textContent).toBe("nobody");
  await act(() => account.signUp("ada", "correct horse battery"));
  await until(() => container.textContent === "ada");
  await act(() => account.signOut());
  await until(() => container.textContent === "nobody");
});
