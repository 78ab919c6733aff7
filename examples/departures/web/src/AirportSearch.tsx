import { useQuery } from "headwater/react";
import { useDeferredValue, useState } from "react";
import { api } from "./api";

/** Finds airports by a part of their name, or their code. */
export function AirportSearch() {
  const [text, setText] = useState("");
  const wanted = useDeferredValue(text.trim().slice(0, 40));
  const found = useQuery(api.reference.search_airports, wanted === "" ? "skip" : { text: wanted });
  return (
    <section className="search">
      <label>
        Airports <input type="search" value={text} onChange={(event) => setText(event.target.value)} />
      </label>
      {found?.length === 0 && <p>None has that in its name.</p>}
      <ul>
        {found?.map((airport) => (
          <li key={airport._id}>
            <b>{airport.faa}</b> {airport.name}, {airport.altitude_ft} ft
          </li>
        ))}
      </ul>
    </section>
  );
}
