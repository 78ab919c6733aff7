/** Calls functions over the server's HTTP interface. No session: what is sent is not sent again. */

import { httpAddress } from "../address.js";
import { type AnyReference, functionName, type Given, type Returns } from "../api.js";
import { fromBase64, toBase64 } from "../base64.js";
import { errorFor, HeadwaterError } from "../errors.js";
import { type Preloaded, preloaded } from "../preloaded.js";
import { canonicalBytes, decodeValue } from "../values.js";

export interface FetchOptions {
  /** Where the server is: `https://host`, `http://host:port`, or the same with wss and ws. */
  readonly url: string;
  /** Of a sign-in service: whose call this is. */
  readonly token?: string | undefined;
  /** Ends the request before its time. */
  readonly signal?: AbortSignal | undefined;
}

/** What follows a function: its arguments, which may be left out only together with nothing else, and where to ask. */
type Asked<F> = [args: NonNullable<Given<F>[0]>, options: FetchOptions];

/** Return a query's result. Rejects with a `HeadwaterError`. */
export async function fetchQuery<F extends AnyReference<"query">>(
  query: F,
  ...[args, options]: Asked<F>
): Promise<Returns<F>> {
  return decodeValue(fromBase64(await call("query", query, args, options))) as Returns<F>;
}

/**
 * Run a mutation and return its result. Rejects with a `HeadwaterError`; with code `connection_lost` if it may
 * or may not have taken effect.
 */
export async function fetchMutation<F extends AnyReference<"mutation">>(
  mutation: F,
  ...[args, options]: Asked<F>
): Promise<Returns<F>> {
  return decodeValue(fromBase64(await call("mutation", mutation, args, options))) as Returns<F>;
}

/**
 * Run an action and return its result; it is not sent again. Rejects with a `HeadwaterError`; with code
 * `connection_lost` if nobody can say how it ended.
 */
export async function fetchAction<F extends AnyReference<"action">>(
  action: F,
  ...[args, options]: Asked<F>
): Promise<Returns<F>> {
  return decodeValue(fromBase64(await call("action", action, args, options))) as Returns<F>;
}

/** Fetch a query's result for a component that goes on with it: `usePreloadedQuery` of `headwater/react`. */
export async function preloadQuery<F extends AnyReference<"query">>(
  query: F,
  ...[args, options]: Asked<F>
): Promise<Preloaded<F>> {
  return preloaded<F>(query, [args] as unknown as Given<F>, await call("query", query, args, options));
}

/** Return an encoded result, in base64. */
async function call(
  kind: "query" | "mutation" | "action",
  reference: AnyReference,
  args: unknown,
  { url, token, signal }: FetchOptions,
): Promise<string> {
  const body = { path: functionName(reference), args: toBase64(canonicalBytes(args)), format: "encoded" };
  const address = `${httpAddress(url)}/api/${kind}`;
  const answer = await answered(address, {
    method: "POST",
    headers: { "Content-Type": "application/json", ...(token ? { Authorization: `Bearer ${token}` } : {}) },
    body: JSON.stringify(body),
    cache: "no-store", // frameworks keep what was fetched unless they are told
    ...(signal ? { signal } : {}),
  });
  if (answer.status === "success" && typeof answer.value === "string") {
    return answer.value;
  }
  throw errorOf(answer, address);
}

type Answer = Readonly<Record<string, unknown>>;

async function answered(address: string, request: RequestInit): Promise<Answer> {
  let content: unknown;
  try {
    const response = await fetch(address, request);
    content = await response.json().catch(() => undefined);
  } catch (error) {
    throw new HeadwaterError("connection_lost", `no answer from ${address}: ${reasonOf(error)}`);
  }
  return typeof content === "object" && content !== null ? (content as Answer) : {};
}

function errorOf(answer: Answer, address: string): HeadwaterError {
  const { errorCode, errorMessage, errorData, code, message } = answer;
  if (typeof errorCode === "string") {
    const data = typeof errorData === "string" ? decodeValue(fromBase64(errorData)) : null;
    return errorFor(errorCode, String(errorMessage ?? ""), data);
  }
  if (typeof code === "string") {
    return errorFor(code, String(message ?? ""));
  }
  return new HeadwaterError("internal_error", `${address} answers with something else than Headwater does`);
}

function reasonOf(error: unknown): string {
  const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
  return cause instanceof Error ? cause.message : String(cause);
}
