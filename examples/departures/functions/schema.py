"""The tables: four of reference data and the flights themselves."""

from datetime import datetime

from headwater import Index, Table


class Airline(Table, name="airlines"):
    carrier: str
    name: str

    by_carrier = Index("carrier", unique=True)


class Airport(Table, name="airports"):
    faa: str
    name: str
    latitude: float
    longitude: float
    altitude_ft: int
    time_zone: str | None

    by_faa = Index("faa", unique=True)


class Plane(Table, name="planes"):
    tail_number: str
    year: int | None
    type: str
    manufacturer: str
    model: str
    engines: int
    seats: int

    by_tail_number = Index("tail_number", unique=True)


class Weather(Table, name="weather"):
    """One hour at one of the three airports of New York. What was not measured is None."""

    origin: str
    hour: datetime
    temperature_f: float | None
    wind_mph: float | None
    precipitation_in: float | None
    visibility_mi: float | None

    by_hour = Index("origin", "hour")


class Flight(Table, name="flights"):
    """A departure, or a flight that was to depart and was cancelled.

    `moment` is when it left, or when a cancelled one should have left: the board's order. `boarding` is what
    somebody at the gate says; the data of 2013 knows nothing of it.
    """

    origin: str
    moment: datetime
    scheduled: datetime
    carrier: str
    number: int
    destination: str
    tail_number: str | None
    delay_min: int | None
    cancelled: bool
    boarding: bool = False

    by_origin = Index("origin", "moment")


class Import(Table, name="imports"):
    """One row once all reference tables are complete."""

    source: str
