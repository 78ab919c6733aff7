/** The protocol's golden vectors, which every client and the server share. */

import { readFileSync } from "node:fs";
import type { Value } from "../../src/api.js";
import { Moment } from "../../src/moment.js";

const FOLDER = new URL("../../../../protocol/vectors/", import.meta.url);

export interface Vector {
  readonly name: string;
  readonly hex: string;
}

/** Return the entries of a file of vectors. */
export function vectors<T extends object>(file: string): (T & Vector)[] {
  return JSON.parse(readFileSync(new URL(file, FOLDER), "utf8"));
}

export function fromHex(hex: string): Uint8Array {
  return new Uint8Array(Buffer.from(hex, "hex"));
}

export function toHex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("hex");
}

/** Return what the vectors describe by `{"int": …}` and the like. */
export function described(value: unknown): Value {
  if (Array.isArray(value)) {
    return value.map(described);
  }
  if (typeof value !== "object" || value === null) {
    return value as Value;
  }
  const [[kind, content]] = Object.entries(value) as [[string, unknown]];
  switch (kind) {
    case "dict":
      return Object.fromEntries(
        (content as [string, unknown][]).map(([name, field]) => [name, described(field)]),
      );
    case "hex":
      return fromHex(String(content));
    case "int":
    case "int64":
      return BigInt(String(content));
    case "float":
      return Number(String(content).replace("inf", "Infinity"));
    case "datetime":
      return moment(String(content));
    default:
      throw new Error(`no description of a value: ${kind}`);
  }
}

function moment(text: string): Date {
  const [, upToMs, microsecond] = /^(.*\.\d{3})(\d{3})\+00:00$/.exec(text) ?? [];
  const date = new Date(`${upToMs}Z`);
  return microsecond === "000" ? date : new Moment(date.getTime(), Number(microsecond));
}
