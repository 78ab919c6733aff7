"""Departures as they happen, and the board that shows them."""

from datetime import datetime, timedelta
from typing import Annotated, Literal

from headwater import ApplicationError, Id, Meta, MutationCtx, QueryCtx, Struct, mutation, query

from .schema import Airline, Airport, Flight, Plane, Weather

Origin = Literal["EWR", "JFK", "LGA"]


class FlightRow(Struct, frozen=True):
    origin: Origin
    moment: datetime
    scheduled: datetime
    carrier: str
    number: int
    destination: str
    tail_number: str | None
    delay_min: int | None


class Conditions(Struct, frozen=True):
    temperature_f: float | None
    wind_mph: float | None
    precipitation_in: float | None
    visibility_mi: float | None


class Departure(Struct, frozen=True):
    """One line of the board. What the data does not know is None, never made up."""

    id: Id[Flight]
    flight: str
    airline: str | None
    destination: str
    destination_name: str | None
    scheduled: datetime
    moment: datetime
    delay_min: int | None
    cancelled: bool
    boarding: bool
    aircraft: str | None
    weather: Conditions | None


@mutation
def record(ctx: MutationCtx, rows: Annotated[list[FlightRow], Meta(max_length=500)]) -> int:
    """Record departures and cancellations; a flight without a delay never left."""
    for row in rows:
        ctx.db.insert(
            Flight(
                origin=row.origin,
                moment=row.moment,
                scheduled=row.scheduled,
                carrier=row.carrier,
                number=row.number,
                destination=row.destination,
                tail_number=row.tail_number,
                delay_min=row.delay_min,
                cancelled=row.delay_min is None,
            )
        )
    return len(rows)


@mutation
def mark_boarding(ctx: MutationCtx, flight: Id[Flight], boarding: bool) -> None:
    """Say that a flight is boarding, or is not; nobody boards one that was cancelled."""
    found = ctx.db.get(flight)
    if found is None:
        raise ApplicationError({"code": "no_such_flight"})
    if found.cancelled:
        raise ApplicationError({"code": "cancelled"})
    ctx.db.patch(flight, boarding=boarding)


@query
def latest(ctx: QueryCtx) -> datetime | None:
    """The moment of the newest recorded flight of any airport: where a replay goes on."""
    newest = [
        ctx.db.query(Flight.by_origin, origin=origin).order("desc").first()
        for origin in ("EWR", "JFK", "LGA")
    ]
    return max((flight.moment for flight in newest if flight), default=None)


@query
def board(ctx: QueryCtx, origin: Origin, limit: Annotated[int, Meta(ge=1, le=100)] = 20) -> list[Departure]:
    """The last departures of an airport, newest first, joined with all that is known about them."""
    flights = ctx.db.query(Flight.by_origin, origin=origin).order("desc").take(limit)
    return [departure(ctx, flight) for flight in flights]


def departure(ctx: QueryCtx, flight: Flight) -> Departure:
    airline = ctx.db.query(Airline.by_carrier, carrier=flight.carrier).unique()
    airport = ctx.db.query(Airport.by_faa, faa=flight.destination).unique()
    plane = (
        ctx.db.query(Plane.by_tail_number, tail_number=flight.tail_number).unique()
        if flight.tail_number
        else None
    )
    hour = flight.scheduled - timedelta(minutes=flight.scheduled.minute)
    weather = ctx.db.query(Weather.by_hour, origin=flight.origin, hour=hour).first()
    return Departure(
        id=flight.id,
        flight=f"{flight.carrier}{flight.number}",
        airline=airline.name if airline else None,
        destination=flight.destination,
        destination_name=airport.name if airport else None,
        scheduled=flight.scheduled,
        moment=flight.moment,
        delay_min=flight.delay_min,
        cancelled=flight.cancelled,
        boarding=flight.boarding,
        aircraft=f"{plane.manufacturer} {plane.model}" if plane else None,
        weather=Conditions(
            temperature_f=weather.temperature_f,
            wind_mph=weather.wind_mph,
            precipitation_in=weather.precipitation_in,
            visibility_mi=weather.visibility_mi,
        )
        if weather
        else None,
    )


class Delays(Struct, frozen=True):
    """Departures of one scheduled hour. `mean_delay_min` is None if all were cancelled."""

    hour: datetime
    flights: int
    cancelled: int
    mean_delay_min: float | None


@query
def delays(ctx: QueryCtx, origin: Origin, flights: Annotated[int, Meta(ge=1, le=500)] = 300) -> list[Delays]:
    """How late the last departures of an airport were, by the hour in which they should have left, oldest first."""
    hours: dict[datetime, list[Flight]] = {}
    for flight in ctx.db.query(Flight.by_origin, origin=origin).order("desc").take(flights):
        hours.setdefault(flight.scheduled.replace(minute=0), []).append(flight)
    return [delays_of(hour, hours[hour]) for hour in sorted(hours)]


def delays_of(hour: datetime, flights: list[Flight]) -> Delays:
    minutes = [flight.delay_min for flight in flights if flight.delay_min is not None]
    return Delays(
        hour=hour,
        flights=len(flights),
        cancelled=len(flights) - len(minutes),
        mean_delay_min=sum(minutes) / len(minutes) if minutes else None,
    )
