"""The examples on a real daemon; what the board shows is worked out again from the CSV files."""

from __future__ import annotations

import csv
import io
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import headwater
import pytest
from headwater_protocol.errors import ApplicationError, HeadwaterError
from rich.console import Console
from support.daemon import RunningDaemon, running

from examples.departures import __main__ as departures
from examples.departures import board, dataset

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "tests/support/departures"


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[RunningDaemon]:
    with running(tmp_path, deploy=ROOT / "examples/departures/functions") as daemon:
        yield daemon


def rows(name: str) -> list[dict[str, str]]:
    with (SAMPLE / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def expected_board(origin: str, limit: int) -> list[dict[str, Any]]:
    """The board from the files alone."""
    airlines = {row["carrier"]: row["name"] for row in rows("airlines.csv")}
    airports = {row["faa"]: row["name"] for row in rows("airports.csv")}
    planes = {row["tailnum"]: f"{row['manufacturer']} {row['model']}" for row in rows("planes.csv")}
    weather = {(row["origin"], row["time_hour"]): row for row in rows("weather.csv")}
    flights = []
    for row in rows("flights.csv"):
        if row["origin"] != origin:
            continue
        hour = datetime.fromisoformat(row["time_hour"])
        scheduled = hour + timedelta(minutes=int(row["minute"]))
        delay = None if row["dep_delay"] == "NA" else int(row["dep_delay"])
        flights.append((scheduled + timedelta(minutes=delay or 0), scheduled, delay, row))
    flights.sort(key=lambda flight: (flight[0], flight[3]["carrier"], int(flight[3]["flight"])))
    shown = []
    for moment, scheduled, delay, row in reversed(flights[-limit:]):
        measured = weather.get((origin, row["time_hour"]))
        shown.append(
            {
                "flight": row["carrier"] + row["flight"],
                "airline": airlines.get(row["carrier"]),
                "destination": row["dest"],
                "destination_name": airports.get(row["dest"]),
                "scheduled": scheduled,
                "moment": moment,
                "delay_min": delay,
                "cancelled": delay is None,
                "aircraft": planes.get(row["tailnum"]),
                "weather": measured
                and {
                    "temperature_f": number(measured["temp"]),
                    "wind_mph": number(measured["wind_speed"]),
                    "precipitation_in": number(measured["precip"]),
                    "visibility_mi": number(measured["visib"]),
                },
            }
        )
    return shown


def number(text: str) -> float | None:
    return None if text == "NA" else float(text)


async def test_the_board_shows_what_the_files_say(daemon: RunningDaemon) -> None:
    flights = dataset.flights(SAMPLE)
    async with headwater.connect(daemon.url) as client:
        await departures.import_reference(client, SAMPLE, Console(quiet=True))
        assert await client.query("reference:finished")
        await departures.replay(client, flights, speed=1_000_000)
        cancelled = missing_planes = missing_airports = 0
        for origin in board.AIRPORTS:
            shown = await client.query("flights:board", origin=origin, limit=100)
            ids = {row.pop("id") for row in shown}
            assert len(ids) == len(shown)
            assert not any(row.pop("boarding") for row in shown)
            assert shown == expected_board(origin, 100)
            cancelled += sum(row["cancelled"] for row in shown)
            missing_planes += sum(row["aircraft"] is None for row in shown)
            missing_airports += sum(row["destination_name"] is None for row in shown)
        # The sample has all the gaps that the whole data has; a board without them would prove nothing.
        assert cancelled
        assert missing_planes
        assert missing_airports
        assert await client.query("flights:latest") == max(row["moment"] for row in flights)


async def test_delays_boarding_and_airports_are_what_the_files_say(daemon: RunningDaemon) -> None:
    async with headwater.connect(daemon.url) as client:
        await departures.import_reference(client, SAMPLE, Console(quiet=True))
        await departures.replay(client, dataset.flights(SAMPLE), speed=1_000_000)
        shown = await client.query("flights:board", origin="JFK", limit=100)
        hours = await client.query("flights:delays", origin="JFK", flights=100)
        assert [hour["hour"] for hour in hours] == sorted(
            {row["scheduled"].replace(minute=0) for row in shown}
        )
        for hour in hours:
            of_hour = [row for row in shown if row["scheduled"].replace(minute=0) == hour["hour"]]
            minutes = [row["delay_min"] for row in of_hour if row["delay_min"] is not None]
            assert (hour["flights"], hour["cancelled"]) == (len(of_hour), len(of_hour) - len(minutes))
            assert hour["mean_delay_min"] == (sum(minutes) / len(minutes) if minutes else None)
        flight = next(row for row in shown if not row["cancelled"])
        await client.mutation("flights:mark_boarding", flight=flight["id"], boarding=True)
        after = await client.query("flights:board", origin="JFK", limit=100)
        assert [row["id"] for row in after if row["boarding"]] == [flight["id"]]
        for origin in board.AIRPORTS:
            for row in await client.query("flights:board", origin=origin, limit=100):
                if row["cancelled"]:
                    with pytest.raises(ApplicationError) as caught:
                        await client.mutation("flights:mark_boarding", flight=row["id"], boarding=True)
                    assert caught.value.data == {"code": "cancelled"}
        names = {row["name"]: row["faa"] for row in rows("airports.csv")}
        for text in ("los angeles", "LAX", "International", "no such place"):
            found = await client.query("reference:search_airports", text=text)
            fitting = sorted(
                name for name, faa in names.items() if text.lower() in name.lower() or text == faa
            )
            assert [airport["name"] for airport in found] == fitting[:10]


def test_the_types_of_the_web_page_are_those_of_the_functions() -> None:
    words = [sys.executable, "-m", "headwater.cli", "codegen", "functions", "--ts", "--out", "web/src/api.ts"]
    subprocess.run([*words, "--check"], cwd=ROOT / "examples/departures", check=True, timeout=60)


async def test_an_import_that_is_repeated_changes_nothing(daemon: RunningDaemon) -> None:
    async with headwater.connect(daemon.url) as client:
        batch = list(dataset.airports(SAMPLE))
        await client.mutation("reference:add_airports", rows=batch)
        assert await client.mutation("reference:add_airports", rows=batch) == 0


async def test_the_board_follows_each_departure(daemon: RunningDaemon) -> None:
    moment = datetime(2014, 6, 1, 12, tzinfo=UTC)
    row = {"origin": "LGA", "moment": moment, "scheduled": moment, "carrier": "ZZ", "number": 1,
           "destination": "XXX", "tail_number": None, "delay_min": 0}  # fmt: skip
    async with headwater.connect(daemon.url) as client:
        updates = client.subscribe("flights:board", origin="LGA")
        async for shown in updates:
            if shown and shown[0]["flight"] == "ZZ2":
                break
            following = 1 if not shown or shown[0]["flight"] != "ZZ1" else 2
            await client.mutation("flights:record", rows=[{**row, "number": following}])
        assert shown[1]["flight"] == "ZZ1"
        assert shown[0]["weather"] is None
        with pytest.raises(HeadwaterError) as caught:
            await client.mutation("flights:record", rows=[{**row, "origin": "SFO"}])
        assert caught.value.code == "invalid_arguments"


def test_the_table_shows_gaps_as_gaps() -> None:
    row = {"moment": datetime(2013, 1, 1, 12, tzinfo=UTC), "flight": "AA1", "airline": None,
           "destination": "SJU", "destination_name": None, "delay_min": None, "cancelled": True,
           "aircraft": None, "weather": None}  # fmt: skip
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(board.table("JFK", [row], "status"))
    text = console.export_text()
    assert "cancelled" in text
    assert text.count("not known") == 4  # airline, airport, aircraft, weather


@pytest.mark.parametrize(
    ("delay", "text"), [(-3, "3 min early"), (0, "on time"), (14, "14 min late"), (90, "90 min late")]
)
def test_delays_in_words(delay: int, text: str) -> None:
    assert board.status_of({"cancelled": False, "delay_min": delay}).plain == text


async def test_chat_as_the_readme_has_it(tmp_path: Path) -> None:
    with running(tmp_path, deploy=ROOT / "examples/chat/functions") as daemon:
        async with headwater.connect(daemon.url) as ada, headwater.connect(daemon.tcp_url) as bob:
            channel = await ada.mutation("messages:open_channel", name="general")
            assert await bob.mutation("messages:open_channel", name="general") == channel
            seen = []
            async for messages in bob.subscribe("messages:list", channel=channel):
                seen.append([message["body"] for message in messages])
                if len(seen) == 1:
                    await ada.mutation("messages:send", channel=channel, author="ada", body="hi")
                elif seen[-1]:
                    break
            assert seen[0] == []
            assert seen[-1] == ["hi"]
