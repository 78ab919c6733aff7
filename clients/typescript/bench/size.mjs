/** What a page loads that imports a file of the package: bundled, minified and gzipped. */

import { gzipSync } from "node:zlib";
import { rolldown } from "rolldown";

/** The part that reads and writes the wire's encoding: msgpack, for which others have a library. */
export const MSGPACK = [/\/reader\.[jt]s$/, /\/writer\.[jt]s$/];

/** Return how many bytes the file at `path` comes to, without the modules in `external`. */
export async function loadedBytes(path, external = []) {
  const bundle = await rolldown({ input: path, external, logLevel: "silent" });
  const { output } = await bundle.generate({ format: "esm", minify: true });
  await bundle.close();
  const text = output.map(({ code = "" }) => code).join("");
  return { minified: Buffer.byteLength(text), gzipped: gzipSync(text, { level: 9 }).length };
}
