export const MSGPACK: RegExp[];
export function loadedBytes(
  path: string,
  external?: RegExp[],
): Promise<{ readonly minified: number; readonly gzipped: number }>;
