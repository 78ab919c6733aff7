/** 1,000 live rows, and how long each frame took while they changed. */

import { memo } from "react";
import { createRoot } from "react-dom/client";
import { HeadwaterClient } from "../../../src/index.js";
import { HeadwaterProvider, useQuery } from "../../../src/react/index.js";
import { api, type Row } from "../../support/bundle.js";

declare global {
  interface Window {
    /** Lengths of frames and of tasks of more than 50 ms, in ms, and how often a row was rendered. */
    seen: { frames: number[]; longTasks: number[]; renders: number };
  }
}

const client = new HeadwaterClient(new URLSearchParams(location.search).get("server") ?? "");
window.seen = { frames: [], longTasks: [], renders: 0 };
new PerformanceObserver((list) => {
  window.seen.longTasks.push(...list.getEntries().map((entry) => entry.duration));
}).observe({ type: "longtask" });

const Line = memo(function Line({ row }: { readonly row: Row }) {
  window.seen.renders += 1;
  return (
    <li id={row.key}>
      {row.rank} {row.key} {row.note}
    </li>
  );
});

/** With `?copied`, every row is another object each time, as without structural sharing. */
const COPIED = new URLSearchParams(location.search).has("copied");

function Rows() {
  const shown = useQuery(api.rows.listed, { board: "many" });
  const rows = COPIED ? shown?.map((row) => ({ ...row })) : shown;
  return (
    <ol>
      {rows?.map((row) => (
        <Line key={row._id} row={row} />
      ))}
    </ol>
  );
}

const root = document.getElementById("root");
if (root !== null) {
  createRoot(root).render(
    <HeadwaterProvider client={client}>
      <Rows />
    </HeadwaterProvider>,
  );
}

let last = performance.now();
function frame(now: number): void {
  window.seen.frames.push(now - last);
  last = now;
  requestAnimationFrame(frame);
}
requestAnimationFrame(frame);
