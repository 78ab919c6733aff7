/** What the main thread of a page has spent its time on, by Chromium's own account. */

import type { Page } from "playwright-core";

const CATEGORIES = ["devtools.timeline", "disabled-by-default-devtools.timeline", "v8", "blink.user_timing"];

interface TraceEvent {
  readonly name: string;
  readonly ph: string;
  readonly pid: number;
  readonly tid: number;
  readonly ts: number;
  readonly dur?: number;
  /** Of the processor, in µs: what else the machine does has no part in it. */
  readonly tdur?: number;
  readonly args?: { readonly name?: string };
}

/** Kinds of work, by the events that stand for it. An event inside another of a kind counts as its own. */
const KINDS = new Map([
  ["FunctionCall", "script"],
  ["FireAnimationFrame", "script"],
  ["TimerFire", "script"],
  ["RunMicrotasks", "script"],
  ["EvaluateScript", "script"],
  ["V8.GC_SCAVENGER", "garbage"],
  ["MinorGC", "garbage"],
  ["MajorGC", "garbage"],
  ["UpdateLayoutTree", "style"],
  ["Layout", "layout"],
  ["PrePaint", "paint"],
  ["Paint", "paint"],
  ["Layerize", "paint"],
  ["Commit", "paint"],
]);

export interface Spent {
  /** Of the processor, in ms, by kind of work; `rest` is what no kind stands for. */
  readonly cpuMs: Record<string, number>;
  /** The longest task, in ms of the processor and by the clock. */
  readonly longestTaskCpuMs: number;
  readonly longestTaskMs: number;
}

/** Return what a page spends while `work` goes on. */
export async function traced(page: Page, work: () => Promise<void>): Promise<Spent> {
  const browser = page.context().browser();
  if (browser === null) {
    throw new Error("a page without a browser");
  }
  await browser.startTracing(page, { categories: CATEGORIES });
  await work();
  const trace = JSON.parse((await browser.stopTracing()).toString());
  return spentOn(trace.traceEvents as TraceEvent[]);
}

function spentOn(events: readonly TraceEvent[]): Spent {
  const mains = events.filter(({ name, args }) => name === "thread_name" && args?.name === "CrRendererMain");
  const busiest = mains
    .map((main) =>
      events.filter((event) => event.ph === "X" && event.pid === main.pid && event.tid === main.tid),
    )
    .sort((one, other) => total(tasksOf(other)) - total(tasksOf(one)))[0];
  const own = [...(busiest ?? [])].sort(
    (one, other) => one.ts - other.ts || (other.dur ?? 0) - (one.dur ?? 0),
  );
  const cpuMs: Record<string, number> = {};
  const open: { kind: string; endUs: number }[] = [];
  const add = (kind: string, us: number) => {
    cpuMs[kind] = (cpuMs[kind] ?? 0) + us / 1000;
  };
  for (const { name, ts, dur = 0, tdur = 0 } of own) {
    const kind = name === "RunTask" ? "rest" : KINDS.get(name);
    if (kind === undefined) {
      continue;
    }
    while ((open.at(-1)?.endUs ?? Number.POSITIVE_INFINITY) <= ts) {
      open.pop();
    }
    const around = open.at(-1);
    add(kind, tdur);
    if (around !== undefined) {
      add(around.kind, -tdur);
    }
    open.push({ kind, endUs: ts + dur });
  }
  const tasks = tasksOf(own);
  return {
    cpuMs,
    longestTaskCpuMs: Math.max(0, ...tasks.map(({ tdur = 0 }) => tdur / 1000)),
    longestTaskMs: Math.max(0, ...tasks.map(({ dur = 0 }) => dur / 1000)),
  };
}

function tasksOf(events: readonly TraceEvent[]): TraceEvent[] {
  return events.filter(({ name }) => name === "RunTask");
}

function total(events: readonly TraceEvent[]): number {
  return events.reduce((sum, { tdur = 0 }) => sum + tdur, 0);
}
