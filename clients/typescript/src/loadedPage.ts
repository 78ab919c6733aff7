/** One page of a query: what was asked for, and the newest that came. */

import type { Page, PageOptions, Value } from "./api.js";
import { isDict, isList } from "./containers.js";
import { type HeadwaterError, ProtocolError } from "./errors.js";
import type { Outcome } from "./events.js";
import type { Listener } from "./subscriptions.js";

const SPLIT_TIMES = 2; // a page with more than this many times the rows it was asked for is split

/** Follows a page; `changed` is called within the step that brings another result. */
export type FollowPage = (options: PageOptions, changed: Listener) => FollowedPage;

export interface FollowedPage {
  outcome(): Outcome | undefined;
  unfollow(): void;
}

/** Options of a page whose size and begin are told. */
export type AskedPage = PageOptions & { readonly numItems: number; readonly cursor: string | null };

export class LoadedPage {
  /** As sent. */
  readonly options: AskedPage;
  /** With more rows than this it is split. */
  splitAbove: number;
  /** Whether it may become one page with the next. */
  joins = true;
  readonly #followed: FollowedPage;

  constructor(options: AskedPage, follow: FollowPage, changed: Listener) {
    this.options = options;
    this.splitAbove = options.numItems * SPLIT_TIMES;
    this.#followed = follow(options, changed);
  }

  /** How many rows it was asked for. */
  get numItems(): number {
    return this.options.numItems;
  }

  /** Where it begins, null for the first page. */
  get begin(): string | null {
    return this.options.cursor;
  }

  /** Whether anything has come. */
  get came(): boolean {
    return this.#followed.outcome() !== undefined;
  }

  /** What it shows; undefined before the first result and while it fails. */
  get result(): Page<Value> | undefined {
    const value = this.#followed.outcome()?.value;
    return isPage(value) ? value : undefined;
  }

  /** Why it fails, if it does. */
  get error(): HeadwaterError | undefined {
    const outcome = this.#followed.outcome();
    return outcome?.value === undefined || isPage(outcome.value) ? outcome?.error : NO_PAGE;
  }

  get rows(): readonly Value[] {
    return this.result?.page ?? [];
  }

  /** Where it ends for good; null while it is not known, and of the last page, whose end is open. */
  get endKept(): string | null {
    const { result } = this;
    return result && !result.isDone ? result.continueCursor : null;
  }

  /** Follow it no more. */
  drop(): void {
    this.#followed.unfollow();
  }

  /** Do not split it before it has grown as much again. */
  splitLater(): void {
    this.splitAbove = Math.max(this.splitAbove, this.rows.length) * SPLIT_TIMES;
  }
}

const NO_PAGE = new ProtocolError("expected a function that returns a Page");

function isPage(value: unknown): value is Page<Value> {
  return (
    isDict(value) &&
    isList(value.page) &&
    typeof value.isDone === "boolean" &&
    typeof value.continueCursor === "string"
  );
}
