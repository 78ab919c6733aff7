/** Wait for what a client shows. */

import type { Watch } from "../../src/index.js";

const PATIENCE_MS = 90_000; // of a machine that does other things as well

/** Wait until `look` returns something that is neither undefined nor false; `follow` says when to look again. */
export function until<T>(
  follow: (again: () => void) => () => void,
  look: () => T | undefined | false,
): Promise<T> {
  return new Promise((resolve, reject) => {
    let unfollow = (): void => {};
    const timer = setTimeout(() => end(() => reject(new Error("waited in vain"))), PATIENCE_MS);
    const end = (tell: () => void) => {
      clearTimeout(timer);
      unfollow();
      tell();
    };
    const again = () => {
      const found = look();
      if (found !== undefined && found !== false) {
        end(() => resolve(found));
      }
    };
    unfollow = follow(again);
    again();
  });
}

/** Wait until a query shows what `fits`, and return that. */
export function shows<R>(watch: Watch<R>, fits: (result: R) => boolean = () => true): Promise<R> {
  return until(watch.onUpdate, () => {
    const result = watch.localResult();
    return result !== undefined && fits(result) && result;
  });
}
