import { useMutation, useQuery } from "headwater/react";
import { memo, useState } from "react";
import { api, type Departure } from "./api";
import { clock, type Origin } from "./origins";

const LIMIT = 20;

/** The last departures of an airport, as they happen. */
export function Board({ origin }: { readonly origin: Origin }) {
  const departures = useQuery(api.flights.board, { origin, limit: LIMIT });
  const [problem, setProblem] = useState<string | null>(null);
  const mark = useMutation(api.flights.mark_boarding).withOptimisticUpdate((store, { flight, boarding }) => {
    const args = { origin, limit: LIMIT };
    const shown = store.getQuery(api.flights.board, args);
    if (shown !== undefined) {
      store.setQuery(
        api.flights.board,
        args,
        shown.map((row) => (row.id === flight ? { ...row, boarding } : row)),
      );
    }
  });
  const toggle = async (row: Departure) => {
    setProblem(null);
    try {
      await mark({ flight: row.id, boarding: !row.boarding });
    } catch (error) {
      setProblem(`${row.flight}: ${error instanceof Error ? error.message : String(error)}`);
    }
  };
  if (departures === undefined) {
    return <p className="board">Loading …</p>;
  }
  return (
    <section className="board">
      <table>
        <thead>
          <tr>
            <th>Left (EST)</th>
            <th>Flight</th>
            <th>Airline</th>
            <th>To</th>
            <th>Status</th>
            <th>Gate</th>
          </tr>
        </thead>
        <tbody>
          {departures.map((row) => (
            <Line key={row.id} row={row} onToggle={toggle} />
          ))}
        </tbody>
      </table>
      {problem !== null && <p role="alert">{problem}</p>}
    </section>
  );
}

/** One line. A row that stays as it is stays the same object, so its line does not render again. */
const Line = memo(
  function Line({
    row,
    onToggle,
  }: {
    readonly row: Departure;
    readonly onToggle: (row: Departure) => Promise<void>;
  }) {
    return (
      <tr data-flight={row.flight} className={row.boarding ? "boarding" : ""}>
        <td>{clock(row.moment)}</td>
        <td>{row.flight}</td>
        <td>{row.airline ?? <em>not known</em>}</td>
        <td>
          {row.destination} {row.destination_name ?? <em>not known</em>}
        </td>
        <td className={row.cancelled ? "late" : ""}>{status(row)}</td>
        <td>
          <button type="button" aria-pressed={row.boarding} onClick={() => onToggle(row)}>
            {row.boarding ? "boarding" : "mark as boarding"}
          </button>
        </td>
      </tr>
    );
  },
  (before, after) => before.row === after.row, // `onToggle` does the same each time
);

function status({ cancelled, delay_min }: Departure): string {
  if (cancelled || delay_min === null) {
    return "cancelled";
  }
  return delay_min > 0 ? `${delay_min} min late` : delay_min === 0 ? "on time" : `${-delay_min} min early`;
}
