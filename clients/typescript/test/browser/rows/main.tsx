/** 1,000 live rows, and how long each frame took while they changed. */

import { type CSSProperties, memo, useEffect, useState } from "react";
import { createRoot } from "react-dom/client";
import { HeadwaterClient } from "../../../src/index.js";
import { HeadwaterProvider, useQuery } from "../../../src/react/index.js";
import { api, type Row } from "../../support/bundle.js";

declare global {
  interface Window {
    /** Lengths of frames in ms, and how often a row was rendered. */
    seen: { frames: number[]; renders: number };
  }
}

const OPTIONS = new URLSearchParams(location.search);
const client = new HeadwaterClient(OPTIONS.get("server") ?? "");
window.seen = { frames: [], renders: 0 };

/** Rows out of sight need no layout and no paint; with `?plain` they have them all the same. */
const STYLE: CSSProperties = OPTIONS.has("plain")
  ? {}
  : { contentVisibility: "auto", containIntrinsicSize: "auto 1.2em" };

const Line = memo(function Line({ row }: { readonly row: Row }) {
  window.seen.renders += 1;
  return (
    <li id={row.key} style={STYLE}>
      {row.rank} {row.key} {row.note}
    </li>
  );
});

/** With `?copied`, every row is another object each time, as without structural sharing. */
const COPIED = OPTIONS.has("copied");

function Rows() {
  const shown = useQuery(api.rows.listed, { board: "many" });
  return <List rows={COPIED ? shown?.map((row) => ({ ...row })) : shown} />;
}

function List({ rows }: { readonly rows: readonly Row[] | undefined }) {
  return (
    <ol>
      {rows?.map((row) => (
        <Line key={row._id} row={row} />
      ))}
    </ol>
  );
}

/** With `?local`, nothing comes from a server: as often, another row of the state is replaced. What React alone costs. */
function Local() {
  const [rows, setRows] = useState<readonly Row[]>();
  useEffect(() => {
    let timer: ReturnType<typeof setInterval>;
    void client.query(api.rows.listed, { board: "many" }).then((first) => {
      let update = 0;
      const change = () => {
        const place = (update++ * 37) % first.length;
        setRows((before = first) =>
          before.map((row, other) => (other === place ? { ...row, note: `update ${update}` } : row)),
        );
      };
      timer = setInterval(change, LOCAL_PAUSE_MS);
      void client.close();
    });
    return () => clearInterval(timer);
  }, []);
  return <List rows={rows} />;
}
const LOCAL_PAUSE_MS = 20;

/** With `?bare`, nothing is rendered behind the first row: what the client alone costs. */
function bare(): void {
  const watch = client.watch(api.rows.listed, { board: "many" });
  watch.onUpdate(() => {
    if (document.getElementById("bare") === null) {
      const mark = Object.assign(document.createElement("p"), { id: "bare" });
      mark.textContent = `${watch.localResult()?.length} rows`;
      document.body.append(mark);
    }
  });
}

const root = document.getElementById("root");
if (OPTIONS.has("bare")) {
  bare();
} else if (root !== null) {
  createRoot(root).render(
    <HeadwaterProvider client={client}>{OPTIONS.has("local") ? <Local /> : <Rows />}</HeadwaterProvider>,
  );
}

let last = performance.now();
function frame(now: number): void {
  window.seen.frames.push(now - last);
  last = now;
  requestAnimationFrame(frame);
}
requestAnimationFrame(frame);
