import { useQuery } from "headwater/react";
import { api } from "./api";
import { clock, type Origin } from "./origins";

const BAR = { width: 14, gap: 4, perMinute: 1.5, below: 30, above: 120 };

/** How late flights were on average, by the hour in which they should have left. */
export function DelayChart({ origin }: { readonly origin: Origin }) {
  const hours = (useQuery(api.flights.delays, { origin }) ?? []).slice(-20);
  const step = BAR.width + BAR.gap;
  return (
    <figure>
      <figcaption>Mean delay by hour, minutes</figcaption>
      <svg viewBox={`0 ${-BAR.above} ${20 * step} ${BAR.above + BAR.below}`} role="img" aria-label="Mean delays">
        <line x2={20 * step} />
        {hours.map(({ hour, mean_delay_min, flights, cancelled }, place) => {
          const height = Math.max(-BAR.below, Math.min(BAR.above, (mean_delay_min ?? 0) * BAR.perMinute));
          return (
            <rect
              key={hour.getTime()}
              x={place * step}
              y={Math.min(0, -height)}
              width={BAR.width}
              height={Math.abs(height)}
              className={height > 0 ? "late" : "early"}
            >
              <title>{`${clock(hour)}: ${mean_delay_min?.toFixed(1) ?? "–"} min, ${flights} flights, ${cancelled} cancelled`}</title>
            </rect>
          );
        })}
      </svg>
    </figure>
  );
}
