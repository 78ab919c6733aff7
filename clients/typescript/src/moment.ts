/** Datetimes, which the wire has in whole microseconds. Pure. */

import { ProtocolError } from "./errors.js";

const YEAR_1_MS = -62_135_596_800_000;
const YEAR_10000_MS = 253_402_300_800_000;

/**
 * A `Date` that keeps the microseconds which a `Date` alone would lose. Datetimes arrive as one where they
 * have any, so that a value that is sent back is the same; every other use may take it for a `Date`.
 */
export class Moment extends Date {
  /** Microseconds behind the millisecond, 0 to 999. */
  readonly microsecond: number;

  constructor(ms: number, microsecond: number) {
    super(ms);
    this.microsecond = microsecond;
  }
}

/** Return the microseconds of a date behind its millisecond. */
export function microsecondOf(date: Date): number {
  return date instanceof Moment ? date.microsecond : 0;
}

/** Tell whether two dates are the same to the microsecond. */
export function isSameMoment(one: Date & Partial<Moment>, other: Date & Partial<Moment>): boolean {
  return one.getTime() === other.getTime() && one.microsecond === other.microsecond;
}

/** Return whole seconds since 1970, rounded down, and the nanoseconds behind them. */
export function secondsOf(date: Date): [seconds: number, nanoseconds: number] {
  const ms = date.getTime();
  const seconds = Math.floor(ms / 1000);
  return [seconds, (ms - seconds * 1000) * 1_000_000 + microsecondOf(date) * 1000];
}

/** Return the date of so many seconds and nanoseconds since 1970. Throws `ProtocolError` if there is none. */
export function dateOf(seconds: number, nanoseconds: number): Date {
  const micros = Math.floor(nanoseconds / 1000);
  const ms = seconds * 1000 + Math.floor(micros / 1000);
  if (nanoseconds >= 1_000_000_000 || !isDateMs(ms)) {
    throw new ProtocolError("expected a date of the years 1 to 9999");
  }
  return micros % 1000 === 0 ? new Date(ms) : new Moment(ms, micros % 1000);
}

/** Tell whether a time is within the years 1 to 9999. */
export function isDateMs(ms: number): boolean {
  return ms >= YEAR_1_MS && ms < YEAR_10000_MS;
}
