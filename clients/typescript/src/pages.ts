/**
 * Pages of a query, all of them live, shown as one list.
 *
 * Each loaded page is a subscription of its own whose end the server keeps, so that pages neither overlap nor leave
 * gaps when rows come and go; those that grew are split and those that shrank are joined. What is shown
 * changes only behind whole steps of the session, when all pages hold at one moment: a row that moves from one
 * page to another is never there twice.
 */

import type { Args, FunctionReference, Page, PageOptions, Returns, Value } from "./api.js";
import { Exchange, exchangeDue } from "./exchange.js";
import { followed } from "./followers.js";
import { type FollowPage, LoadedPage } from "./loadedPage.js";
import { shared } from "./sharing.js";
import type { Listener } from "./subscriptions.js";

/** Whether there is more, and whether it is on its way. */
export type PageStatus = "LoadingFirstPage" | "CanLoadMore" | "LoadingMore" | "Exhausted";

/** What the loaded pages show together. Rows keep their identity while they stay as they are. */
export interface Paged<T> {
  readonly results: T[];
  readonly status: PageStatus;
}

/** The pages of a live query, to look at and to follow. */
export interface PagedWatch<T> {
  /** Call `callback` whenever they show something else; return what ends that. Without anybody there are none. */
  onUpdate(callback: () => void): () => void;
  /** Return what they show: the same object until it changes. Throws the query's error. */
  localResult(): Paged<T>;
  /** Ask for the next page; return whether there may be one and none was on its way. */
  loadMore(numItems?: number): boolean;
}

/** A query that takes `PageOptions` and returns a `Page`. */
export type PagedQuery = FunctionReference<"query", never, Page<unknown>>;

type PageArgument<F> = {
  [Name in keyof Args<F>]-?: PageOptions extends Args<F>[Name] ? Name : never;
}[keyof Args<F>];

/** Arguments of a paginated query but for the page options. */
export type PagedQueryArgs<F> =
  keyof Args<F> extends PageArgument<F>
    ? Record<string, never> // an object type without fields would take any
    : Omit<Args<F>, PageArgument<F>>;

/** A row of a paginated query. */
export type PageOf<F> = Returns<F> extends Page<infer T> ? T : never;

const NOTHING: Paged<Value> = Object.freeze({ results: [], status: "LoadingFirstPage" });

/** The loaded pages of one query. */
export class PageChain implements PagedWatch<Value> {
  readonly #numItems: number;
  readonly #followPage: FollowPage;
  readonly #touch: () => void;
  readonly #settleNow: () => void;
  readonly #listeners = new Set<Listener>();
  #pages: LoadedPage[] = [];
  #sizes: number[] = []; // of the pages that were asked for
  #exchange: Exchange | undefined; // at most one goes on at a time
  #marks = 0;
  #shown = NOTHING;
  #failure: unknown; // what a page failed with, undefined while none does

  /** `touch` has `settle` called behind the step that goes on; `settleNow`, without one, now. */
  constructor(
    numItems: number,
    follow: FollowPage,
    touch: (chain: PageChain) => void,
    settleNow: () => void,
  ) {
    this.#numItems = numItems;
    this.#followPage = follow;
    this.#touch = () => touch(this);
    this.#settleNow = settleNow;
  }

  readonly localResult = (): Paged<Value> => {
    if (this.#failure !== undefined) {
      throw this.#failure;
    }
    return this.#shown;
  };

  readonly onUpdate = (callback: Listener): (() => void) => {
    const unfollow = followed(this.#listeners, callback, () => {
      if (this.#listeners.size === 0) {
        this.#close();
      }
    });
    if (this.#sizes.length === 0) {
      this.#load(this.#numItems);
    }
    return unfollow;
  };

  readonly loadMore = (numItems = this.#numItems): boolean => {
    const may = this.#shown.status === "CanLoadMore";
    if (may) {
      this.#load(numItems);
    }
    return may;
  };

  #load(numItems: number): void {
    this.#sizes.push(numItems);
    this.#touch();
    this.#settleNow();
  }

  #close(): void {
    this.#dropExchange();
    this.#drop(this.#pages);
    this.#sizes = [];
    this.#shown = NOTHING;
    this.#failure = undefined;
  }

  /** Look at all pages together, which hold at one moment; load, split and show what is due. Returns whom to tell. */
  settle(): Iterable<Listener> {
    if (this.#sizes.length === 0) {
      return [];
    }
    const [shown, failure, before] = [this.#shown, this.#failure, this.#pages.length];
    try {
      this.#keepChained();
      this.#goOnExchanging();
      this.#loadDue();
      this.#show();
    } catch (error) {
      this.#failure = error; // a page cannot be followed: the client has too many queries
    }
    if (this.#pages.length > before && this.#pages.at(-1)?.came) {
      this.#touch(); // somebody else follows that page too, so that it is there at once
    }
    return this.#shown === shown && this.#failure === failure ? [] : this.#listeners;
  }

  /**
   * Drop the pages behind one that has another end than it had; they are loaded again. The server keeps the
   * ends of pages. It cannot after a deploy that changed the query.
   */
  #keepChained(): void {
    for (const [place, page] of this.#pages.entries()) {
      const end = this.#pages[place - 1]?.result?.continueCursor;
      if (page.error?.code === "invalid_cursor" && page.begin !== null) {
        return this.#drop(this.#pages);
      }
      if (end !== undefined && end !== page.begin) {
        return this.#drop(this.#pages.slice(place));
      }
    }
  }

  #loadDue(): void {
    if (this.#pages.length === 0) {
      this.#pages.push(this.#follow({ numItems: this.#sizes[0] ?? this.#numItems, cursor: null }));
    }
    const last = this.#pages.at(-1)?.result;
    const numItems = this.#sizes[this.#pages.length];
    if (numItems !== undefined && last && !last.isDone) {
      this.#pages.push(this.#follow({ numItems, cursor: last.continueCursor }));
    }
  }

  #show(): void {
    this.#failure = this.#pages.find((page) => page.error !== undefined)?.error;
    if (this.#failure === undefined) {
      const results = shared(
        this.#shown.results,
        this.#pages.flatMap((page) => page.rows),
      );
      const [first, last] = [this.#pages[0]?.result, this.#pages.at(-1)?.result];
      const status = !first
        ? "LoadingFirstPage"
        : !last
          ? "LoadingMore"
          : last.isDone
            ? "Exhausted"
            : "CanLoadMore";
      if (results !== this.#shown.results || status !== this.#shown.status) {
        this.#shown = Object.freeze({ results: results as Value[], status });
      }
    }
  }

  // ---------------------------------------------------------------------------------- splitting, joining

  #goOnExchanging(): void {
    const exchange = this.#exchange;
    if (!exchange) {
      this.#exchange = this.#dueExchange();
    } else if (exchange.old.some((page) => !this.#pages.includes(page) || page.endKept === null)) {
      this.#dropExchange();
    } else if (!exchange.waits) {
      const second = exchange.second();
      if (second) {
        exchange.fresh.push(this.#follow(second, true));
      } else if (exchange.fits) {
        this.#putInPlace(exchange);
      } else {
        exchange.giveUp();
        this.#dropExchange();
      }
    }
  }

  #dueExchange(): Exchange | undefined {
    const due = exchangeDue(this.#pages);
    return due && new Exchange(due[0], [this.#follow(due[1], true)]);
  }

  #putInPlace({ old, fresh }: Exchange): void {
    const place = this.#pages.indexOf(old[0] as LoadedPage);
    this.#pages.splice(place, old.length, ...fresh);
    this.#sizes.splice(place, old.length, ...fresh.map((page) => page.numItems));
    this.#exchange = undefined;
    this.#drop(old);
    this.#touch();
  }

  #dropExchange(): void {
    this.#drop(this.#exchange?.fresh ?? []);
    this.#exchange = undefined;
  }

  // ---------------------------------------------------------------------------------------- subscriptions

  /** `marked`: with the same arguments as a page that is there it would be that page, so it gets an id. */
  #follow(options: LoadedPage["options"], marked = false): LoadedPage {
    const asked = marked ? { ...options, id: ++this.#marks } : options;
    return new LoadedPage(asked, this.#followPage, this.#touch);
  }

  #drop(pages: readonly LoadedPage[]): void {
    for (const page of [...pages]) {
      page.drop();
      this.#pages = this.#pages.filter((other) => other !== page);
    }
  }
}
