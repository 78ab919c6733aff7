/** Hands the client to the components below. */

import { createContext, type ReactNode, useContext } from "react";
import type { HeadwaterClient } from "../client.js";

const ClientContext = createContext<HeadwaterClient | null>(null);

/** Give a client to the hooks below. Make it once, outside of components: it keeps the connection. */
export function HeadwaterProvider({
  client,
  children,
}: {
  readonly client: HeadwaterClient;
  readonly children?: ReactNode;
}): ReactNode {
  return <ClientContext.Provider value={client}>{children}</ClientContext.Provider>;
}

/** Return the client of the provider above, for what has no hook. */
export function useHeadwater(): HeadwaterClient {
  const client = useContext(ClientContext);
  if (client === null) {
    throw new Error(
      "no client: put <HeadwaterProvider client={client}> around the components that use Headwater",
    );
  }
  return client;
}
