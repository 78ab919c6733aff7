/** How the connection stands, for a banner that says so. */

import { useCallback, useSyncExternalStore } from "react";
import type { ConnectionState } from "../connectionState.js";
import { useHeadwater } from "./provider.js";

/** Return how the client stands, and render again whenever that changes. */
export function useConnectionState(): ConnectionState {
  const client = useHeadwater();
  const follow = useCallback((callback: () => void) => client.onConnectionState(callback), [client]);
  const look = () => client.connectionState();
  return useSyncExternalStore(follow, look, look);
}
