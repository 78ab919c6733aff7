/** Code against the types of `examples/departures`. */

import type { HeadwaterClient } from "headwater";
import { api, type FlightRow } from "./departures_api";

const ROW: FlightRow = {
  origin: "JFK",
  moment: new Date("2013-01-01"),
  scheduled: new Date("2013-01-01"),
  carrier: "UA",
  number: 1,
  destination: "SFO",
  tail_number: null,
  delay_min: 3,
};

export async function right(client: HeadwaterClient): Promise<Date | null> {
  const recorded: number = await client.mutation(api.flights.record, { rows: [ROW] });
  const board = await client.query(api.flights.board, { origin: "JFK", limit: recorded });
  const gusty = board.filter((row) => (row.weather?.wind_mph ?? 0) > 30.5);
  const cities: string[] = gusty.map((row) => row.destination_name ?? row.destination);
  await client.mutation(api.reference.finish);
  await client.mutation(api.reference.finish, {});
  console.log(cities.length, board[0]?.moment.getTime());
  return await client.query(api.flights.latest);
}

export async function wrong(client: HeadwaterClient): Promise<void> {
  await client.query(api.flights.board, { origin: "SFO" }); // error
  await client.mutation(api.flights.record, { rows: [{ origin: "JFK" }] }); // error
  await client.mutation(api.flights.record, { rows: ROW }); // error
  await client.query(api.flights.latest, { origin: "JFK" }); // error
  const board = await client.query(api.flights.board, { origin: "JFK" });
  board[0]?.weather.wind_mph; // error
  board[0]?.moment.slice(0, 10); // error
  const latest: Date = await client.query(api.flights.latest); // error
  console.log(latest, board[0]?.origin); // error
}
