/** A page that shows who is signed in, with the tokens of whoever opened it. */

import { useCallback, useState } from "react";
import { createRoot } from "react-dom/client";
import { type FunctionReference, HeadwaterClient, HeadwaterError, makeApi } from "../../../src/index.js";
import {
  Authenticated,
  AuthLoading,
  HeadwaterProviderWithAuth,
  Unauthenticated,
  useMutation,
  useQuery,
} from "../../../src/react/index.js";

declare global {
  interface Window {
    /** Given by the test: a token of a user. */
    tokenOf(user: string, forceRefresh: boolean): Promise<string>;
  }
}

const api = makeApi<{
  notes: {
    whoami: FunctionReference<"query", Record<never, never>, string | null>;
    write: FunctionReference<"mutation", { topic: string; text: string }, string>;
  };
}>();

const client = new HeadwaterClient(new URLSearchParams(location.search).get("server") ?? "");

function Page() {
  const [user, setUser] = useState("");
  const fetchAccessToken = useCallback(
    ({ forceRefresh }: { forceRefresh: boolean }) => window.tokenOf(user, forceRefresh),
    [user],
  );
  const useAuth = () => ({ isLoading: false, isAuthenticated: user !== "", fetchAccessToken });
  return (
    <HeadwaterProviderWithAuth client={client} useAuth={useAuth}>
      {["ada", "bob", ""].map((name) => (
        <button type="button" key={name} id={`be-${name || "nobody"}`} onClick={() => setUser(name)}>
          {name || "sign out"}
        </button>
      ))}
      <AuthLoading>
        <p id="state">loading</p>
      </AuthLoading>
      <Unauthenticated>
        <p id="state">signed out</p>
        <Who />
      </Unauthenticated>
      <Authenticated>
        <p id="state">signed in</p>
        <Who />
      </Authenticated>
    </HeadwaterProviderWithAuth>
  );
}

function Who() {
  const who = useQuery(api.notes.whoami, {});
  const write = useMutation(api.notes.write);
  const [answer, setAnswer] = useState("");
  const save = () =>
    write({ topic: "t", text: "from a page" }).then(setAnswer, (error: unknown) =>
      setAnswer(error instanceof HeadwaterError ? error.code : String(error)),
    );
  return (
    <>
      <p id="who">{who === undefined ? "…" : (who ?? "nobody")}</p>
      <button type="button" id="write" onClick={() => void save()}>
        write
      </button>
      <p id="answer">{answer}</p>
    </>
  );
}

const root = document.getElementById("root");
if (root !== null) {
  createRoot(root).render(<Page />);
}
