from typing import Any

from headwater import Index, Table


class Item(Table, name="items"):
    number: int
    value: Any = None

    by_number = Index("number")


class Wide(Table, name="wide"):
    """Eight fields with the system's two."""

    a: int
    b: int
    c: int
    d: int
    e: int
    f: int


class Wider(Table, name="wider"):
    """One more."""

    a: int
    b: int
    c: int
    d: int
    e: int
    f: int
    g: int
