import type { Args } from "headwater";
import type { api } from "./api";

/** One of the three airports that the data is of. */
export type Origin = Args<typeof api.flights.board>["origin"];

export const ORIGINS: Readonly<Record<Origin, string>> = {
  EWR: "Newark",
  JFK: "John F. Kennedy",
  LGA: "LaGuardia",
};

/** The clock of New York in winter, which the board shows all year. */
const CLOCK = new Intl.DateTimeFormat("en-GB", {
  timeZone: "Etc/GMT+5",
  day: "2-digit",
  month: "short",
  hour: "2-digit",
  minute: "2-digit",
});

export function clock(moment: Date): string {
  return CLOCK.format(moment);
}
