/**
 * Pages of a query, all of them live, shown as one list.
 *
 * Each loaded page is a subscription of its own whose end the server keeps, so that pages neither overlap nor leave
 * gaps when rows come and go; those that grew are split and those that shrank are joined. What is shown
 * changes only behind whole steps of the session, when all pages hold at one moment: a row that moves from one
 * page to another is never there twice.
 */

import type { Args, FunctionReference, Page, PageOptions, Returns, Value } from "./api.js";
import { Exchange, joinDue, splitDue } from "./exchange.js";
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
export type PagedQueryArgs<F> = Omit<Args<F>, PageArgument<F>>;

/** A row of a paginated query. */
export type PageOf<F> = Returns<F> extends Page<infer T> ? T : never;

/** What a chain needs of its client. */
export interface Chained {
  readonly follow: FollowPage;
  /** Have `settle` called behind the step that goes on. */
  touch(chain: PageChain): void;
  /** There is no step going on: have it called now. */
  settled(): void;
}

const NOTHING: Paged<Value> = Object.freeze({ results: [], status: "LoadingFirstPage" });

/** The loaded pages of one query. */
export class PageChain {
  readonly #numItems: number;
  readonly #client: Chained;
  readonly #listeners = new Set<Listener>();
  #pages: LoadedPage[] = [];
  #sizes: number[] = []; // of the pages that were asked for
  #exchange: Exchange | undefined; // at most one goes on at a time
  #marks = 0;
  #shown = NOTHING;
  #failure: unknown; // what a page failed with, undefined while none does

  constructor(numItems: number, client: Chained) {
    this.#numItems = numItems;
    this.#client = client;
  }

  /** Return the chain as its user has it. */
  watch(): PagedWatch<Value> {
    return {
      onUpdate: (callback) => this.#onUpdate(callback),
      localResult: () => {
        if (this.#failure !== undefined) {
          throw this.#failure;
        }
        return this.#shown;
      },
      loadMore: (numItems = this.#numItems) => this.#loadMore(numItems),
    };
  }

  #onUpdate(callback: Listener): () => void {
    const listener = () => callback();
    this.#listeners.add(listener);
    if (this.#sizes.length === 0) {
      this.#load(this.#numItems);
    }
    return () => {
      if (this.#listeners.delete(listener) && this.#listeners.size === 0) {
        this.#close();
      }
    };
  }

  #loadMore(numItems: number): boolean {
    const may = this.#sizes.length > 0 && this.#shown.status === "CanLoadMore";
    if (may) {
      this.#load(numItems);
    }
    return may;
  }

  #load(numItems: number): void {
    this.#sizes.push(numItems);
    this.#client.touch(this);
    this.#client.settled();
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
      this.#client.touch(this); // somebody else follows that page too, so that it is there at once
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
    if (numItems !== undefined && last !== undefined && !last.isDone) {
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
      const status = this.#status();
      if (results !== this.#shown.results || status !== this.#shown.status) {
        this.#shown = Object.freeze({ results: results as Value[], status });
      }
    }
  }

  #status(): PageStatus {
    if (this.#pages[0]?.result === undefined) {
      return "LoadingFirstPage";
    }
    const last = this.#pages.at(-1)?.result;
    return last === undefined ? "LoadingMore" : last.isDone ? "Exhausted" : "CanLoadMore";
  }

  // ---------------------------------------------------------------------------------- splitting, joining

  #goOnExchanging(): void {
    const exchange = this.#exchange;
    if (exchange === undefined) {
      this.#exchange = this.#dueExchange();
    } else if (exchange.old.some((page) => page.dropped || page.endKept === null)) {
      this.#dropExchange();
    } else if (!exchange.waits) {
      const second = exchange.second();
      if (second !== undefined) {
        exchange.replacements.push(this.#follow(second, true));
      } else if (exchange.fits) {
        this.#putInPlace(exchange);
      } else {
        exchange.giveUp();
        this.#dropExchange();
      }
    }
  }

  #dueExchange(): Exchange | undefined {
    const due = splitDue(this.#pages) ?? joinDue(this.#pages);
    return due && new Exchange(due.old, [this.#follow(due.options, true)]);
  }

  #putInPlace({ old, replacements }: Exchange): void {
    const place = this.#pages.indexOf(old[0] as LoadedPage);
    this.#pages.splice(place, old.length, ...replacements);
    this.#sizes.splice(place, old.length, ...replacements.map((page) => page.numItems));
    this.#exchange = undefined;
    this.#drop(old);
    this.#client.touch(this);
  }

  #dropExchange(): void {
    this.#drop(this.#exchange?.replacements ?? []);
    this.#exchange = undefined;
  }

  // ---------------------------------------------------------------------------------------- subscriptions

  /** `marked`: with the same arguments as a page that is there it would be that page, so it gets an id. */
  #follow(options: LoadedPage["options"], marked = false): LoadedPage {
    const asked = marked ? { ...options, id: ++this.#marks } : options;
    return new LoadedPage(asked, this.#client.follow, () => this.#client.touch(this));
  }

  #drop(pages: readonly LoadedPage[]): void {
    for (const page of [...pages]) {
      page.drop();
      this.#pages = this.#pages.filter((other) => other !== page);
    }
  }
}
