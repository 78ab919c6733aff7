/** A history of the Python session, repeated call by call by the one of this package. */

import { expect } from "vitest";
import { HeadwaterError } from "../../src/errors.js";
import type { ClientEvent, Outcome } from "../../src/events.js";
import type { ClientSession } from "../../src/session.js";
import { decodeValue } from "../../src/values.js";
import type { View } from "../../src/view.js";
import { fromHex, toHex } from "./vectors.js";

type Look = ["get", string, number, string | null] | ["set", string, number, string];

interface Call {
  readonly call: string;
  readonly arguments: readonly unknown[];
  readonly result?: unknown;
  readonly raises?: string;
  readonly stands?: readonly [inFlight: number, settled: boolean];
}

export interface History {
  readonly seed: number;
  readonly session: string;
  readonly client: string;
  readonly known: readonly string[];
  readonly calls: readonly Call[];
}

/** Repeat a history; throws where the session does anything else than the one that made it. */
export function repeat(history: History, session: ClientSession): void {
  for (const [place, call] of history.calls.entries()) {
    const where = `seed ${history.seed}, call ${place}, ${call.call}`;
    let result: unknown;
    try {
      result = perform(session, call, history);
    } catch (error) {
      expect(error, where).toBeInstanceOf(HeadwaterError);
      expect((error as HeadwaterError).code, where).toBe(call.raises);
      continue;
    }
    expect(call.raises, where).toBeUndefined();
    expect(result ?? null, where).toStrictEqual(read(call.result));
    expect([session.inFlight, session.settled], where).toStrictEqual(call.stands);
  }
}

function perform(session: ClientSession, { call, arguments: given }: Call, { known }: History): unknown {
  const [first, second, third] = given;
  switch (call) {
    case "subscribe":
      return session.subscribe(String(first), fromHex(String(second)), third === true);
    case "unsubscribe":
      return session.unsubscribe(Number(first));
    case "mutate": {
      const update = third === null ? undefined : looking(third as Look[][], known);
      return session.mutate(String(first), fromHex(String(second)), update);
    }
    case "act":
      return session.act(String(first), fromHex(String(second)));
    case "authenticate":
      return session.authenticate(first as string | null, second === true);
    case "takeEvents":
      return written(session.takeEvents());
    case "takeFrames":
      return session.takeFrames().map(toHex);
    case "connect":
      return session.connect();
    case "disconnected":
      return written(session.disconnected());
    case "renew":
      return written(session.renew(fromHex(String(first))));
    case "tick":
      return written(session.tick(Number(first)));
    case "receive":
      return written(session.receive(fromHex(String(first))));
    default:
      throw new Error(`no call of a session: ${call}`);
  }
}

/** Return an update that looks and sets as the recorded one did, and expects to see what that saw. */
function looking(runs: Look[][], known: readonly string[]): (view: View) => void {
  let run = 0;
  return (view) => {
    for (const [what, name, place, hex] of runs[run++] ?? missing()) {
      const args = fromHex(known[place] ?? "");
      const value = hex === null ? undefined : decodeValue(fromHex(hex));
      if (what === "get") {
        expect(view.get(name, args), `what run ${run} of an update finds`).toStrictEqual(value);
      } else {
        view.set(name, args, value ?? null);
      }
    }
  };
}

function missing(): never {
  throw new Error("an update is run more often than by the other session");
}

function written(events: readonly ClientEvent[]): unknown[] {
  return events.map((event) => {
    switch (event.type) {
      case "QueryChanged":
        return [event.type, event.query, outcome(event.outcome)];
      case "Resolved":
        return [event.type, event.request, outcome(event.outcome)];
      case "UpdateFailed":
        return [event.type, event.request];
      case "Moved":
        return [event.type, event.ts];
      case "Fatal":
        return [event.type, event.error.code, event.reconnect];
      case "AuthenticationFailed":
      case "IdentityLost":
        return [event.type, event.message];
      default:
        return [event.type];
    }
  });
}

function outcome({ value, error }: Outcome): unknown[] {
  return error === undefined ? ["value", value] : ["error", error.code, error.data];
}

/** Return a recorded result with its values decoded. */
function read(result: unknown): unknown {
  return Array.isArray(result) ? result.map(readPart) : result;
}

function readPart(part: unknown): unknown {
  if (!Array.isArray(part)) {
    return part;
  }
  const [type, number, recorded] = part;
  if (type !== "QueryChanged" && type !== "Resolved") {
    return part;
  }
  const [kind, first, second] = recorded as [string, string, string];
  const read =
    kind === "value" ? [kind, decodeValue(fromHex(first))] : [kind, first, decodeValue(fromHex(second))];
  return [type, number, read];
}
