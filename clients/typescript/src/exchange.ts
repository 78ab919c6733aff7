/** Pages that take the place of others once they show exactly the same rows. Pure. */

import type { Value } from "./api.js";
import type { AskedPage, LoadedPage } from "./loadedPage.js";

import { shared } from "./sharing.js";

const JOIN_PART = 2; // two neighbours with at most this part of the rows one was asked for become one page

/** What is to be exchanged, and how the first replacement is asked for. */
interface Due {
  readonly old: readonly LoadedPage[];
  readonly options: AskedPage;
}

export class Exchange {
  /** One page that is to be split, or two neighbours that are to be joined. */
  readonly old: readonly LoadedPage[];
  /** What replaces them; of two halves the second once it is known where it begins. */
  readonly replacements: LoadedPage[];

  constructor(old: readonly LoadedPage[], replacements: LoadedPage[]) {
    this.old = old;
    this.replacements = replacements;
  }

  /** Whether a new page has not come yet. */
  get waits(): boolean {
    return this.replacements.some((page) => !page.came);
  }

  /** Whether the new pages end where the old ones do and show the same. */
  get fits(): boolean {
    const ends = this.replacements.map((page) => page.endKept);
    if (ends.includes(null) || ends.at(-1) !== this.old.at(-1)?.endKept) {
      return false;
    }
    const [before, after] = [rowsOf(this.old), rowsOf(this.replacements)];
    return before.length === after.length && before.every((row, place) => sameRow(row, after[place]));
  }

  /** Return how the second half of a page is asked for, undefined if it is not due. */
  second(): AskedPage | undefined {
    const [page, other] = this.old;
    const [first, second] = this.replacements;
    const begin = first?.endKept;
    if (page === undefined || other !== undefined || second !== undefined || begin == null) {
      return undefined;
    }
    return page.rows.length > page.numItems
      ? { numItems: page.numItems, cursor: begin, endCursor: page.endKept }
      : undefined;
  }

  /** Do not try again soon. */
  giveUp(): void {
    for (const page of this.old) {
      page.joins = page.joins && this.old.length === 1;
      page.splitLater();
    }
  }
}

/** Return the first page that is to be split. */
export function splitDue(pages: readonly LoadedPage[]): Due | undefined {
  const page = pages.find(({ endKept, rows, splitAbove }) => endKept !== null && rows.length > splitAbove);
  return page && { old: [page], options: { numItems: page.numItems, cursor: page.begin } };
}

/** Return the first two pages that are to be joined. */
export function joinDue(pages: readonly LoadedPage[]): Due | undefined {
  for (const [place, page] of pages.entries()) {
    const after = pages[place + 1];
    if (after !== undefined && page.joins && page.endKept !== null && after.endKept !== null) {
      if ((page.rows.length + after.rows.length) * JOIN_PART <= page.numItems) {
        const { numItems, begin: cursor } = page;
        return { old: [page, after], options: { numItems, cursor, endCursor: after.endKept } };
      }
    }
  }
  return undefined;
}

function rowsOf(pages: readonly LoadedPage[]): readonly Value[] {
  return pages.flatMap((page) => page.rows);
}

/** Tell whether two rows of different subscriptions are equal: then nothing of one is new to the other. */
function sameRow(row: Value, other: Value | undefined): boolean {
  return other !== undefined && shared(row, other) === row;
}
