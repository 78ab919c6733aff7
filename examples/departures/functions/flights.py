"""Departures as they happen, and the board that shows them."""

from datetime import datetime, timedelta
from typing import Annotated, Literal

from headwater import Meta, MutationCtx, QueryCtx, Struct, mutation, query

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

    flight: str
    airline: str | None
    destination: str
    destination_name: str | None
    scheduled: datetime
    moment: datetime
    delay_min: int | None
    cancelled: bool
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
        flight=f"{flight.carrier}{flight.number}",
        airline=airline.name if airline else None,
        destination=flight.destination,
        destination_name=airport.name if airport else None,
        scheduled=flight.scheduled,
        moment=flight.moment,
        delay_min=flight.delay_min,
        cancelled=flight.cancelled,
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
