/** A page that runs actions, and shows what they say and what they write. */

import { useRef, useState } from "react";
import { createRoot } from "react-dom/client";
import { HeadwaterClient, HeadwaterError } from "../../../src/index.js";
import {
  HeadwaterProvider,
  useAction,
  useConnectionState,
  useHeadwater,
  useQuery,
} from "../../../src/react/index.js";
import { api } from "../../support/bundle.js";

const options = new URLSearchParams(location.search);
const client = new HeadwaterClient(options.get("server") ?? "");
const board = options.get("board") ?? "";

function Page() {
  const rows = useQuery(api.rows.listed, { board });
  const { inflightActions } = useConnectionState();
  const [said, setSaid] = useState<readonly unknown[]>([]);
  const say = (piece: unknown) => setSaid((before) => [...before, piece]);
  return (
    <>
      <Answers say={say} />
      <Pieces say={say} />
      <p id="said">{said.join(", ")}</p>
      <p id="state">{inflightActions} under way</p>
      <p id="rows">{rows?.map(({ key }) => key).join(" ")}</p>
    </>
  );
}

interface Sayer {
  readonly say: (piece: unknown) => void;
}

/** Actions with one result each. */
function Answers({ say }: Sayer) {
  const fill = useAction(api.acts.fill);
  const slow = useAction(api.acts.slow);
  const told = (answer: Promise<unknown>) => void answer.then(say, (error) => say(codeOf(error)));
  return (
    <>
      <button type="button" id="fill" onClick={() => told(fill({ board, keys: ["a", "b", "c"] }))}>
        fill
      </button>
      <button type="button" id="slow" onClick={() => told(slow({ seconds: 600 }))}>
        slow
      </button>
    </>
  );
}

/** Actions that stream. */
function Pieces({ say }: Sayer) {
  const headwater = useHeadwater();
  const stopped = useRef(false);
  const follow = async (pieces: AsyncIterable<unknown>) => {
    stopped.current = false;
    try {
      for await (const piece of pieces) {
        say(piece);
        if (stopped.current) {
          return say("stopped");
        }
      }
      say("over");
    } catch (error) {
      say(codeOf(error));
    }
  };
  const words = (count: number) => headwater.stream(api.acts.words, { board, count, pause_s: 0.02 });
  return (
    <>
      <button type="button" id="few" onClick={() => follow(words(3))}>
        few words
      </button>
      <button type="button" id="many" onClick={() => follow(words(1_000))}>
        many words
      </button>
      <button
        type="button"
        id="breaks"
        onClick={() => follow(headwater.stream(api.acts.breaks, { after: 2 }))}
      >
        breaks
      </button>
      <button
        type="button"
        id="stop"
        onClick={() => {
          stopped.current = true;
        }}
      >
        stop
      </button>
    </>
  );
}

function codeOf(error: unknown): string {
  return error instanceof HeadwaterError ? error.code : String(error);
}

const root = document.getElementById("root");
if (root !== null) {
  createRoot(root).render(
    <HeadwaterProvider client={client}>
      <Page />
    </HeadwaterProvider>,
  );
}
