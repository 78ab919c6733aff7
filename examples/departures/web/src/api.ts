/* eslint-disable */
/**
 * Functions of a Headwater bundle, typed for its clients.
 *
 * Made by `headwater codegen --ts`; changes are lost when it is made again.
 *
 *     useQuery(api.module.function, { argument: value })
 */

import { type Id as AnyId, type FunctionReference, makeApi } from "headwater";

/** The id of a document of a table. */
export type Id<Table extends keyof Docs> = AnyId<Table>;

/** What documents look like, by table. */
export interface Docs {
  readonly airlines: Airline;
  readonly airports: Airport;
  readonly flights: Flight;
  readonly imports: Import;
  readonly planes: Plane;
  readonly weather: Weather;
}

/** A document of a table. */
export type Doc<Table extends keyof Docs> = Docs[Table];

/** One line of the board. What the data does not know is None, never made up. */
export type Departure = {
  readonly aircraft: string | null;
  readonly airline: string | null;
  readonly boarding: boolean;
  readonly cancelled: boolean;
  readonly delay_min: number | null;
  readonly destination: string;
  readonly destination_name: string | null;
  readonly flight: string;
  readonly id: Id<"flights">;
  readonly moment: Date;
  readonly scheduled: Date;
  readonly weather: Conditions | null;
};

export type Conditions = {
  readonly precipitation_in: number | null;
  readonly temperature_f: number | null;
  readonly visibility_mi: number | null;
  readonly wind_mph: number | null;
};

/** Departures of one scheduled hour. `mean_delay_min` is None if all were cancelled. */
export type Delays = {
  readonly cancelled: number;
  readonly flights: number;
  readonly hour: Date;
  readonly mean_delay_min: number | null;
};

export type FlightRow = {
  readonly carrier: string;
  readonly delay_min: number | null;
  readonly destination: string;
  readonly moment: Date;
  readonly number: number;
  readonly origin: "EWR" | "JFK" | "LGA";
  readonly scheduled: Date;
  readonly tail_number: string | null;
};

export type AirlineRow = {
  readonly carrier: string;
  readonly name: string;
};

export type AirportRow = {
  readonly altitude_ft: number;
  readonly faa: string;
  readonly latitude: number;
  readonly longitude: number;
  readonly name: string;
  readonly time_zone: string | null;
};

export type PlaneRow = {
  readonly engines: number;
  readonly manufacturer: string;
  readonly model: string;
  readonly seats: number;
  readonly tail_number: string;
  readonly type: string;
  readonly year: number | null;
};

export type WeatherRow = {
  readonly hour: Date;
  readonly origin: string;
  readonly precipitation_in: number | null;
  readonly temperature_f: number | null;
  readonly visibility_mi: number | null;
  readonly wind_mph: number | null;
};

export type Airport = {
  readonly _creationTime: number;
  readonly _id: Id<"airports">;
  readonly altitude_ft: number;
  readonly faa: string;
  readonly latitude: number;
  readonly longitude: number;
  readonly name: string;
  readonly time_zone: string | null;
};

export type Airline = {
  readonly _creationTime: number;
  readonly _id: Id<"airlines">;
  readonly carrier: string;
  readonly name: string;
};

export type Flight = {
  readonly _creationTime: number;
  readonly _id: Id<"flights">;
  readonly boarding: boolean;
  readonly cancelled: boolean;
  readonly carrier: string;
  readonly delay_min: number | null;
  readonly destination: string;
  readonly moment: Date;
  readonly number: number;
  readonly origin: string;
  readonly scheduled: Date;
  readonly tail_number: string | null;
};

export type Import = {
  readonly _creationTime: number;
  readonly _id: Id<"imports">;
  readonly source: string;
};

export type Plane = {
  readonly _creationTime: number;
  readonly _id: Id<"planes">;
  readonly engines: number;
  readonly manufacturer: string;
  readonly model: string;
  readonly seats: number;
  readonly tail_number: string;
  readonly type: string;
  readonly year: number | null;
};

export type Weather = {
  readonly _creationTime: number;
  readonly _id: Id<"weather">;
  readonly hour: Date;
  readonly origin: string;
  readonly precipitation_in: number | null;
  readonly temperature_f: number | null;
  readonly visibility_mi: number | null;
  readonly wind_mph: number | null;
};

/** What clients may call. */
export interface Api {
  flights: {
    /** The last departures of an airport, newest first, joined with all that is known about them. */
    board: FunctionReference<"query", { limit?: number | undefined; origin: "EWR" | "JFK" | "LGA" }, readonly Departure[]>;
    /** How late the last departures of an airport were, by the hour in which they should have left, oldest first. */
    delays: FunctionReference<"query", { flights?: number | undefined; origin: "EWR" | "JFK" | "LGA" }, readonly Delays[]>;
    /** The moment of the newest recorded flight of any airport: where a replay goes on. */
    latest: FunctionReference<"query", Record<string, never>, Date | null>;
    /** Say that a flight is boarding, or is not; nobody boards one that was cancelled. */
    mark_boarding: FunctionReference<"mutation", { boarding: boolean; flight: Id<"flights"> }, null>;
    /** Record departures and cancellations; a flight without a delay never left. */
    record: FunctionReference<"mutation", { rows: readonly FlightRow[] }, number>;
  };
  reference: {
    add_airlines: FunctionReference<"mutation", { rows: readonly AirlineRow[] }, number>;
    add_airports: FunctionReference<"mutation", { rows: readonly AirportRow[] }, number>;
    add_planes: FunctionReference<"mutation", { rows: readonly PlaneRow[] }, number>;
    add_weather: FunctionReference<"mutation", { rows: readonly WeatherRow[] }, number>;
    /** Remember that all reference tables have been imported. */
    finish: FunctionReference<"mutation", Record<string, never>, null>;
    /** Whether all reference tables have been imported. */
    finished: FunctionReference<"query", Record<string, never>, boolean>;
    /** Airports with this in their name, or this code; ten at most, by name. */
    search_airports: FunctionReference<"query", { text: string }, readonly Airport[]>;
  };
}

/** The functions by their names: `api.module.function`. */
export const api = makeApi<Api>();
