/** Where a server is. Pure. */

import { HeadwaterError } from "./errors.js";

const DEFAULT_PORT = "4510";
const SCHEMES = new Map([
  ["ws:", "ws:"],
  ["wss:", "wss:"],
  ["http:", "ws:"],
  ["https:", "wss:"],
]);

/**
 * Return the WebSocket address that `ws://host:port`, `wss://`, `http://` or `https://` means.
 *
 * A path in front (a proxy's prefix) is kept: `wss://host/db` is spoken to at `/db/sync`. Throws
 * `invalid_request` if the text is no such address.
 */
export function syncAddress(text: string): string {
  const url = urlOf(text);
  url.pathname = `${prefixOf(url)}/sync`;
  return url.href;
}

/** Return the same place for HTTP, without a closing slash: `https://host/db`. Throws `invalid_request`. */
export function httpAddress(text: string): string {
  const url = urlOf(text);
  return `${url.protocol === "wss:" ? "https:" : "http:"}//${url.host}${prefixOf(url)}`;
}

function urlOf(text: string): URL {
  const [, scheme = "", rest = ""] = /^(\w+:)\/\/([^?#]+)$/.exec(text) ?? [];
  const protocol = SCHEMES.get(scheme);
  // URL knows each scheme's own port and drops it; ours is another.
  const url =
    protocol !== undefined && URL.canParse(`${protocol}//${rest}`) && new URL(`${protocol}//${rest}`);
  if (!url) {
    throw new HeadwaterError(
      "invalid_request",
      `"${text}" is not an address; write wss://host or ws://host:port`,
    );
  }
  if (url.port === "" && protocol === "ws:" && !/:80(\/|$)/.test(rest)) {
    url.port = DEFAULT_PORT;
  }
  return url;
}

function prefixOf(url: URL): string {
  return url.pathname.replace(/\/+$/, "").replace(/\/sync$/, "");
}
