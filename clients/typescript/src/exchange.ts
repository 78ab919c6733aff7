/** Pages that take the place of others once they show exactly the same rows. Pure. */

import type { Value } from "./api.js";
import type { AskedPage, LoadedPage } from "./loadedPage.js";

import { shared } from "./sharing.js";

const JOIN_PART = 2; // two neighbours with at most this part of the rows one was asked for become one page

export class Exchange {
  /** One page that is to be split, or two neighbours that are to be joined. */
  readonly old: readonly LoadedPage[];
  /** What replaces them; of two halves the second once it is known where it begins. */
  readonly fresh: LoadedPage[];

  constructor(old: readonly LoadedPage[], fresh: LoadedPage[]) {
    this.old = old;
    this.fresh = fresh;
  }

  /** Whether a new page has not come yet. */
  get waits(): boolean {
    return this.fresh.some((page) => !page.came);
  }

  /** Whether the new pages end where the old ones do and show the same. */
  get fits(): boolean {
    const ends = this.fresh.map((page) => page.endKept);
    if (ends.includes(null) || ends.at(-1) !== this.old.at(-1)?.endKept) {
      return false;
    }
    const before = rowsOf(this.old);
    return shared(before, rowsOf(this.fresh)) === before; // equal, so that nothing of them is new
  }

  /** Return how the second half of a page is asked for, undefined if it is not due. */
  second(): AskedPage | undefined {
    const [page, other] = this.old;
    const [first, second] = this.fresh;
    const cursor = first?.endKept;
    return page && !other && !second && cursor && page.rows.length > page.numItems
      ? { numItems: page.numItems, cursor, endCursor: page.endKept }
      : undefined;
  }

  /** Do not try again soon. */
  giveUp(): void {
    for (const page of this.old) {
      page.joins &&= this.old.length === 1;
      page.splitLater();
    }
  }
}

/** Return the first page that is to be split, or two that are to be joined, and how the replacement is asked for. */
export function exchangeDue(pages: readonly LoadedPage[]): [LoadedPage[], AskedPage] | undefined {
  for (const [place, page] of pages.entries()) {
    const { numItems, begin: cursor, endKept, rows } = page;
    const after = pages[place + 1];
    if (endKept !== null && rows.length > page.splitAbove) {
      return [[page], { numItems, cursor }];
    }
    if (endKept !== null && after && page.joins && after.endKept !== null) {
      if ((rows.length + after.rows.length) * JOIN_PART <= numItems) {
        return [[page, after], { numItems, cursor, endCursor: after.endKept }];
      }
    }
  }
  return undefined;
}

function rowsOf(pages: readonly LoadedPage[]): readonly Value[] {
  return pages.flatMap((page) => page.rows);
}
