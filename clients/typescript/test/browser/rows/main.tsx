/** 1,000 live rows, and how long each frame took while they changed. */

import { memo } from "react";
import { createRoot } from "react-dom/client";
import { HeadwaterClient } from "../../../src/index.js";
import { HeadwaterProvider, useQuery } from "../../../src/react/index.js";
import { api, type Row } from "../../support/bundle.js";

declare global {
  interface Window {
    /** Frames since the last look: their lengths, and how often a row was rendered. */
    frameLengthsMs: number[];
    renders: number;
  }
}

const client = new HeadwaterClient(new URLSearchParams(location.search).get("server") ?? "");
window.frameLengthsMs = [];
window.renders = 0;

const Line = memo(function Line({ row }: { readonly row: Row }) {
  window.renders += 1;
  return (
    <li id={row.key}>
      {row.rank} {row.key} {row.note}
    </li>
  );
});

function Rows() {
  const rows = useQuery(api.rows.listed, { board: "many" });
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
  window.frameLengthsMs.push(now - last);
  last = now;
  requestAnimationFrame(frame);
}
requestAnimationFrame(frame);
