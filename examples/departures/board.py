"""The board as a table for a terminal: what is missing is shown as missing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from rich.table import Table
from rich.text import Text

AIRPORTS = {"EWR": "Newark", "JFK": "John F. Kennedy", "LGA": "LaGuardia"}
UNKNOWN = Text("not known", style="dim")
ON_TIME_MIN = 15
_STANDARD = timezone(timedelta(hours=-5), "EST")


def table(airport: str, departures: list[dict[str, Any]], status: str) -> Table:
    """Return the board of one airport, newest departure first."""
    board = Table(
        title=f"{AIRPORTS[airport]} ({airport}) · last {len(departures)} departures of 2013",
        caption=status,
        expand=True,
        pad_edge=False,
    )
    board.add_column("Left (EST)", no_wrap=True)
    board.add_column("Flight", no_wrap=True)
    board.add_column("Airline", ratio=3, overflow="ellipsis", no_wrap=True)
    board.add_column("To", ratio=4, overflow="ellipsis", no_wrap=True)
    board.add_column("Aircraft", ratio=3, overflow="ellipsis", no_wrap=True)
    board.add_column("Status", no_wrap=True)
    board.add_column("Weather", ratio=3, overflow="ellipsis", no_wrap=True)
    for row in departures:
        board.add_row(
            _clock(row["moment"]),
            row["flight"],
            row["airline"] or UNKNOWN,
            Text.assemble(row["destination"], " ", row["destination_name"] or UNKNOWN),
            row["aircraft"] or UNKNOWN,
            status_of(row),
            weather_of(row["weather"]),
        )
    return board


def status_of(row: dict[str, Any]) -> Text:
    """Return "cancelled", "on time" or the delay."""
    if row["cancelled"]:
        return Text("cancelled", style="bold red")
    delay = row["delay_min"]
    if delay <= 0:
        return Text("on time" if delay == 0 else f"{-delay} min early", style="green")
    return Text(
        f"{delay} min late", style="green" if delay < ON_TIME_MIN else "yellow" if delay < 60 else "red"
    )


def weather_of(conditions: dict[str, Any] | None) -> Text:
    """Return the hour's weather in a few words, with only what was measured."""
    if conditions is None:
        return UNKNOWN
    parts = []
    if conditions["temperature_f"] is not None:
        parts.append(f"{(conditions['temperature_f'] - 32) / 1.8:.0f} °C")
    if conditions["wind_mph"] is not None:
        parts.append(f"wind {conditions['wind_mph'] * 1.609:.0f} km/h")
    if conditions["precipitation_in"]:
        parts.append(f"rain {conditions['precipitation_in'] * 25.4:.1f} mm")
    return Text(", ".join(parts)) if parts else UNKNOWN


def _clock(moment: datetime) -> str:
    return moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(_STANDARD).strftime("%d %b %H:%M")
