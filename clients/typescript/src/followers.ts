/** Who is called when there is something new. Pure. */

/**
 * Add a listener to others; return what takes it away again, for good: it is not called any more then, not even by a
 * round of calls that goes on. `left` is called once it has been taken away.
 *
 * The same listener may be added twice: each time it is a follower of its own.
 */
export function followed<News extends readonly unknown[]>(
  followers: Set<(...news: News) => void>,
  listener: (...news: News) => void,
  left?: () => void,
): () => void {
  const follower = (...news: News): void => {
    if (followers.has(follower)) {
      listener(...news);
    }
  };
  followers.add(follower);
  return () => {
    if (followers.delete(follower)) {
      left?.();
    }
  };
}
