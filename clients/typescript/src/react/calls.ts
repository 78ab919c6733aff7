/** Mutations and actions in components. */

import { type AnyReference, type Args, functionName, type Given, type Returns } from "../api.js";
import type { HeadwaterClient } from "../client.js";
import type { LocalStore } from "../localStore.js";
import { useHeadwater } from "./provider.js";
import { useKeyed } from "./watch.js";

/** Shows a mutation's change in the results that this client has. */
export type OptimisticUpdate<F> = (store: LocalStore, args: Args<F>) => void;

/** Runs a mutation. */
export interface ReactMutation<F extends AnyReference<"mutation">> {
  (...given: Given<F>): Promise<Returns<F>>;
  /**
   * Return the same with an update that shows the change from the call on, until the server's results do or
   * the mutation fails. It is run again over every new result, so it depends on nothing but its arguments.
   */
  withOptimisticUpdate(update: OptimisticUpdate<F>): ReactMutation<F>;
}

/** Runs an action. */
export type ReactAction<F extends AnyReference<"action">> = (...given: Given<F>) => Promise<Returns<F>>;

/** Return a function that runs a mutation; the same at each render. */
export function useMutation<F extends AnyReference<"mutation">>(mutation: F): ReactMutation<F> {
  const client = useHeadwater();
  return useKeyed(() => mutationOf(client, mutation), client, functionName(mutation));
}

/** Return a function that runs an action; the same at each render. */
export function useAction<F extends AnyReference<"action">>(action: F): ReactAction<F> {
  const client = useHeadwater();
  return useKeyed(() => actionOf(client, action), client, functionName(action));
}

function actionOf<F extends AnyReference<"action">>(client: HeadwaterClient, action: F): ReactAction<F> {
  return (...given) => client.action(action, ...given);
}

function mutationOf<F extends AnyReference<"mutation">>(
  client: HeadwaterClient,
  mutation: F,
  update?: OptimisticUpdate<F>,
): ReactMutation<F> {
  const options = update === undefined ? {} : { optimisticUpdate: update };
  const run = (...[args]: Given<F>): Promise<Returns<F>> =>
    client.mutation(mutation, ...([args ?? {}, options] as unknown as [...Given<F>, typeof options]));
  return Object.assign(run, {
    withOptimisticUpdate: (other: OptimisticUpdate<F>) => mutationOf(client, mutation, other),
  });
}
