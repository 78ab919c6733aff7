/** Where a server is. Pure. */

import { HeadwaterError } from "./errors.js";

const DEFAULT_PORT = "4510";

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
  const [, , secure, host = "", path] = /^(ws|http)(s?):\/\/([^/?#]+)([^?#]*)$/.exec(text) ?? [];
  // URL knows each scheme's own port and drops it; ours is another.
  const address = `ws${secure}://${secure || /:\d+$/.test(host) ? host : `${host}:${DEFAULT_PORT}`}${path}`;
  if (!URL.canParse(address)) {
    throw new HeadwaterError("invalid_request", `"${text}" is no address such as ws://host:port`);
  }
  return new URL(address);
}

function prefixOf(url: URL): string {
  return url.pathname.replace(/(\/sync)?\/*$/, "");
}
