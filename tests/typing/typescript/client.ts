/** What a client offers, as far as types go. */

import type { AnyReference, Given, Returns } from "headwater";

export interface Client {
  query<F extends AnyReference<"query">>(query: F, ...given: Given<F>): Promise<Returns<F>>;
  mutation<F extends AnyReference<"mutation">>(mutation: F, ...given: Given<F>): Promise<Returns<F>>;
}
