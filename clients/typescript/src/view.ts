/**
 * Results as an optimistic update finds and changes them; of use while the update runs. Pure.
 */

import type { Value } from "./api.js";
import { keyOfQuery } from "./query.js";
import { shared } from "./sharing.js";

/** A query with the value that it shows. */
export interface Shown {
  readonly name: string;
  /** Encoded dict. */
  readonly args: Uint8Array;
  readonly value: Value;
}

/** Values of queries, by `keyOfQuery`. */
export type Layer = Map<string, Shown>;

/** Shows a mutation's change. It is run again over every new result. */
export type Update = (view: View) => void;

export class View {
  /** What the update has set. */
  readonly changes: Layer = new Map();
  readonly #base: Layer;
  readonly #overlay: Layer;

  /** `overlay` is what earlier updates have set over `base`. */
  constructor(base: Layer, overlay: Layer) {
    this.#base = base;
    this.#overlay = overlay;
  }

  /** Return the value that a query shows; undefined if it shows none or is not subscribed. */
  get(name: string, args: Uint8Array): Value | undefined {
    return this.#shown(keyOfQuery(name, args))?.value;
  }

  /** Show another value for a query, if it is subscribed. Throws `invalid_arguments` if it is no value. */
  set(name: string, args: Uint8Array, value: Value): void {
    this.changes.set(keyOfQuery(name, args), { name, args, value: shared(this.get(name, args), value) });
  }

  /** Return every query of a function that shows a value. */
  all(name: string): Shown[] {
    const keys = new Set([...this.#base.keys(), ...this.#overlay.keys(), ...this.changes.keys()]);
    return [...keys].flatMap((key) => {
      const shown = this.#shown(key);
      return shown?.name === name ? [shown] : [];
    });
  }

  #shown(key: string): Shown | undefined {
    return this.changes.get(key) ?? this.#overlay.get(key) ?? this.#base.get(key);
  }
}
