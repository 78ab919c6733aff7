import { useState } from "react";
import { AirportSearch } from "./AirportSearch";
import { Board } from "./Board";
import { Connection } from "./Connection";
import { DelayChart } from "./DelayChart";
import { ORIGINS, type Origin } from "./origins";

/** One airport at a time: its board, how late its flights are, and where the others are. */
export function App() {
  const [origin, setOrigin] = useState<Origin>("JFK");
  return (
    <>
      <header>
        <h1>Departures of 2013</h1>
        <nav>
          {Object.entries(ORIGINS).map(([code, name]) => (
            <button
              type="button"
              key={code}
              aria-pressed={code === origin}
              onClick={() => setOrigin(code as Origin)}
            >
              {name}
            </button>
          ))}
        </nav>
        <Connection />
      </header>
      <main>
        <Board origin={origin} />
        <aside>
          <DelayChart origin={origin} />
          <AirportSearch />
        </aside>
      </main>
    </>
  );
}
