/** What an optimistic update reads and changes: the results that this client shows. Pure. */

import { type AnyReference, type Args, functionName, type Returns, type Value } from "./api.js";
import { called } from "./query.js";
import { decodeValue } from "./values.js";
import type { View } from "./view.js";

/**
 * Results of the client's queries, of use only while an update runs.
 *
 * Values are frozen: `setQuery` takes new ones, made of the old ones' parts where these stay.
 */
export class LocalStore {
  readonly #view: View;

  constructor(view: View) {
    this.#view = view;
  }

  /** Return what a query shows; undefined if nobody follows it, nothing has come yet or it failed. */
  getQuery<F extends AnyReference<"query">>(query: F, args: Args<F>): Returns<F> | undefined {
    return this.#view.get(...called(query, args)) as Returns<F> | undefined;
  }

  /** Return arguments and value of every followed query of a function that shows one. */
  getAllQueries<F extends AnyReference<"query">>(query: F): { args: Args<F>; value: Returns<F> }[] {
    return this.#view.all(functionName(query)).map(({ args, value }) => ({
      args: decodeValue(args) as Args<F>,
      value: value as Returns<F>,
    }));
  }

  /** Show another value for a query; without effect if nobody follows it. Throws `invalid_arguments` if it is none. */
  setQuery<F extends AnyReference<"query">>(query: F, args: Args<F>, value: Returns<F>): void {
    this.#view.set(...called(query, args), value as Value);
  }
}
