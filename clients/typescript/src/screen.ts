/**
 * What a client shows: the results of its queries as the server told them, and pending changes on top.
 *
 * Pure but for the updates it calls, which belong to the caller.
 *
 * Results arrive one by one and are shown in steps. A step (`settle`) takes over everything that has arrived,
 * so what is shown always held at one moment. On top of it stand the optimistic updates of mutations that no
 * step covers yet: each is run again, in the order of the mutations, over the results of every step. So a
 * change is shown from the call of its mutation on, by the update first and by the results from the very step
 * that covers it; none shows it twice or not at all.
 */

import type { ClientEvent, Outcome } from "./events.js";
import type { ChangeBody } from "./messages.js";
import type { Query } from "./query.js";
import { shared } from "./sharing.js";
import { type Layer, type Shown, type Update, View } from "./view.js";

/** The updates of mutations that are not decided, by the numbers of these, rising. */
export type Updates = readonly (readonly [request: number, update: Update])[];

/** All subscriptions of a client. */
export class Screen {
  /** By number. */
  readonly queries = new Map<number, Query>();
  #arrived = new Map<number, Outcome>(); // since the last step, in the order in which they came
  readonly #overlaid = new Set<number>();
  readonly #tell: (event: ClientEvent) => void;

  constructor(tell: (event: ClientEvent) => void) {
    this.#tell = tell;
  }

  /** Forget a query. */
  remove(number: number): void {
    this.#arrived.delete(number);
    this.#overlaid.delete(number);
    this.queries.delete(number);
  }

  /** Take a change that has arrived; the next step shows it. */
  apply(number: number, query: Query, body: ChangeBody, outcome: Outcome | undefined): void {
    query.apply(body, outcome);
    if (query.confirmed) {
      this.#changed(number, outcome);
    } else if (outcome) {
      this.#arrived.set(number, outcome);
    }
  }

  /** Take a step: show all that has arrived, under the updates that it does not cover. */
  settle(updates: Updates): void {
    const arrived = this.#arrived;
    this.#arrived = new Map();
    for (const [number, outcome] of arrived) {
      const query = this.queries.get(number);
      if (query) {
        query.settled = outcome;
      }
    }
    this.show(updates, new Set(arrived.keys()));
  }

  /** Run an update for the first time, over the others; what it throws reaches the caller. */
  attempt(updates: Updates, update: Update): void {
    const base = this.#base();
    update(
      new View(
        base,
        this.#overlay(updates, base, () => {}),
      ),
    );
  }

  /** Show what stands since the last step, `settled` having come with it, under these updates. */
  show(updates: Updates, settled: ReadonlySet<number> = new Set()): void {
    const overlay: Layer = updates.length > 0 ? this.#overlay(updates, this.#base(), this.#tell) : new Map();
    const numbers = new Set([...settled, ...[...this.#overlaid].sort((one, other) => one - other)]);
    for (const number of overlay.size > 0 ? this.queries.keys() : []) {
      numbers.add(number);
    }
    for (const number of numbers) {
      const query = this.queries.get(number);
      if (query) {
        const content = query.confirmed ? undefined : overlay.get(query.key);
        const outcome = difference(query, content, settled.has(number));
        if (!content) {
          this.#overlaid.delete(number);
        } else {
          this.#overlaid.add(number);
        }
        this.#changed(number, outcome);
      }
    }
  }

  #changed(query: number, outcome: Outcome | undefined): void {
    if (outcome) {
      this.#tell({ type: "QueryChanged", query, outcome });
    }
  }

  /** What stands since the last step. */
  #base(): Layer {
    const base: Layer = new Map();
    for (const { key, name, args, confirmed, settled } of this.queries.values()) {
      if (!confirmed && settled?.value !== undefined) {
        base.set(key, { name, args, value: settled.value });
      }
    }
    return base;
  }

  /** Run the updates one on top of the other; one that fails changes nothing. */
  #overlay(updates: Updates, base: Layer, failed: (event: ClientEvent) => void): Layer {
    const subscribed = new Set(
      [...this.queries.values()].filter((query) => !query.confirmed).map(({ key }) => key),
    );
    const overlay: Layer = new Map();
    for (const [request, update] of updates) {
      const view = new View(base, overlay);
      try {
        update(view);
      } catch (error) {
        failed({ type: "UpdateFailed", request, error });
        continue;
      }
      for (const [key, shown] of view.changes) {
        if (subscribed.has(key)) {
          overlay.set(key, shown);
        }
      }
    }
    return overlay;
  }
}

/**
 * Have a query show `content`, or else what is settled, and return what there is to tell of that.
 *
 * A value that equals the one before is not told again, if an update has shown one of the two. What the server
 * tells takes over the equal parts of what an update has shown, so that they stay the same objects.
 */
function difference(query: Query, content: Shown | undefined, fresh: boolean): Outcome | undefined {
  const { settled, shown } = query;
  if (content) {
    query.shown = shared(shown ?? settled?.value, content.value);
    return query.shown === shown ? undefined : { value: query.shown };
  }
  query.shown = undefined;
  if (shown === undefined) {
    return fresh ? settled : undefined;
  }
  if (settled?.value === undefined) {
    return settled; // without one, the update has shown it before the server: its first result is on the way
  }
  const value = shared(shown, settled.value);
  if (query.value === settled.value) {
    query.value = value;
  }
  query.settled = { value };
  return value === shown ? undefined : query.settled;
}
