/** Signing in with a service of one's own, and components that are shown by who is signed in. */

import {
  createContext,
  type ReactNode,
  useContext,
  useEffect,
  useMemo,
  useState,
  useSyncExternalStore,
} from "react";
import type { FetchToken } from "../authentication.js";
import type { HeadwaterClient } from "../client.js";
import { HeadwaterProvider } from "./provider.js";

/** What a sign-in service knows; usually its own hook, with the names changed. */
export interface AuthOfService {
  /** Whether it still finds out. */
  readonly isLoading: boolean;
  readonly isAuthenticated: boolean;
  /** Returns a token for the server. Keep it the same between renders (`useCallback`): another one signs in again. */
  readonly fetchAccessToken: FetchToken;
}

/** Who is signed in, as far as the server has accepted it. */
export interface AuthState {
  readonly isLoading: boolean;
  readonly isAuthenticated: boolean;
}

const AuthContext = createContext<AuthState | null>(null);

/** Give a client to the hooks below, signed in with the tokens of a service. */
export function HeadwaterProviderWithAuth({
  client,
  useAuth,
  children,
}: {
  readonly client: HeadwaterClient;
  readonly useAuth: () => AuthOfService;
  readonly children?: ReactNode;
}): ReactNode {
  const service = useAuth();
  const [accepted, setAccepted] = useState<boolean | null>(null);
  const undecided = service.isLoading || (service.isAuthenticated && accepted === null);
  const isAuthenticated = !undecided && service.isAuthenticated && accepted === true;
  const state = useMemo(() => ({ isLoading: undecided, isAuthenticated }), [undecided, isAuthenticated]);
  return (
    <AuthContext.Provider value={state}>
      <HeadwaterProvider client={client}>
        <SignIn client={client} service={service} onChange={setAccepted} />
        {children}
      </HeadwaterProvider>
    </AuthContext.Provider>
  );
}

/** Signs in and out. A component before its siblings, so that this happens before they ask for anything. */
function SignIn({
  client,
  service: { isLoading, isAuthenticated, fetchAccessToken },
  onChange,
}: {
  readonly client: HeadwaterClient;
  readonly service: AuthOfService;
  readonly onChange: (accepted: boolean | null) => void;
}): ReactNode {
  useEffect(() => {
    if (isLoading || !isAuthenticated) {
      return;
    }
    let current = true;
    client.setAuth(fetchAccessToken, (accepted, isRefreshing) => {
      if (current) {
        onChange(isRefreshing ? null : accepted);
      }
    });
    return () => {
      current = false;
      client.clearAuth();
      onChange(null);
    };
  }, [client, isLoading, isAuthenticated, fetchAccessToken, onChange]);
  return null;
}

/** Return who is signed in, as far as the server has accepted it. */
export function useHeadwaterAuth(): AuthState {
  const state = useContext(AuthContext);
  if (state === null) {
    throw new Error("nobody can sign in: use <HeadwaterProviderWithAuth> in place of <HeadwaterProvider>");
  }
  return state;
}

/** Show its children while somebody is signed in. */
export function Authenticated({ children }: { readonly children?: ReactNode }): ReactNode {
  return useHeadwaterAuth().isAuthenticated ? children : null;
}

/** Show its children while nobody is signed in. */
export function Unauthenticated({ children }: { readonly children?: ReactNode }): ReactNode {
  const { isLoading, isAuthenticated } = useHeadwaterAuth();
  return isLoading || isAuthenticated ? null : children;
}

/** Show its children until it is known whether somebody is signed in. */
export function AuthLoading({ children }: { readonly children?: ReactNode }): ReactNode {
  return useHeadwaterAuth().isLoading ? children : null;
}

/** What of an `AccountClient` is used here. */
export interface AccountOfBundle {
  readonly isSignedIn: () => boolean;
  readonly subscribe: (listener: () => void) => () => void;
  readonly fetchToken: FetchToken;
}

/** Return who is signed in at the accounts of the bundle: for `useAuth` of `HeadwaterProviderWithAuth`. */
export function useAccountAuth(account: AccountOfBundle): AuthOfService {
  const isAuthenticated = useSyncExternalStore(account.subscribe, account.isSignedIn, nobody);
  return { isLoading: false, isAuthenticated, fetchAccessToken: account.fetchToken };
}

const nobody = (): boolean => false;
