/** The functions of tests/support/bundles/web. */

import {
  type FunctionReference,
  type Id,
  makeApi,
  type Page,
  type PageOptions,
  type Value,
} from "../../src/index.js";

export interface Row {
  readonly _id: Id<"rows">;
  readonly _creationTime: number;
  readonly board: string;
  readonly key: string;
  readonly rank: number;
  readonly note: string;
}

interface Typed {
  readonly whole: number | bigint;
  readonly real: number;
  readonly marked: bigint;
  readonly text: string;
  readonly content: Uint8Array;
  readonly moment: Date;
  readonly rest: readonly Value[];
}

interface Api {
  rows: {
    listed: FunctionReference<"query", { board: string }, Row[]>;
    count: FunctionReference<"query", { board: string }, { rows: number }>;
    first: FunctionReference<"query", { board: string }, Row | null>;
    ranked: FunctionReference<"query", { board: string; options: PageOptions }, Page<Row>>;
    fails: FunctionReference<"query", { board: string }, null>;
    add: FunctionReference<"mutation", { board: string; key: string; rank: number }, Id<"rows">>;
    note: FunctionReference<"mutation", { board: string; key: string; text: string }, null>;
    append: FunctionReference<"mutation", { board: string; key: string; text: string }, string>;
    fill: FunctionReference<"mutation", { board: string; first: number; number: number }, null>;
    remove: FunctionReference<"mutation", { board: string; first: number; number: number }, null>;
    refuse: FunctionReference<"mutation", { board: string }, null>;
  };
  acts: {
    fill: FunctionReference<"action", { board: string; keys: string[] }, number>;
    slow: FunctionReference<"action", { seconds: number }, string>;
    words: FunctionReference<"stream", { board: string; count: number; pause_s?: number }, string>;
    breaks: FunctionReference<"stream", { after: number }, number>;
  };
  values: {
    typed: FunctionReference<"query", Typed, { given: Typed; types: Record<string, string> }>;
  };
}

export const api = makeApi<Api>();
