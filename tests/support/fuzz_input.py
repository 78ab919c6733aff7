"""Hostile bytes: messages built from the list of messages, with wrong parts among right ones, and mutated vectors."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgpack

from support.runs import ROOT

if TYPE_CHECKING:
    import random

PROTOCOL = ROOT / "protocol"
LISTED = json.loads((PROTOCOL / "messages.json").read_text())
EDGES = (0, 1, 2, 127, 128, 255, 256, 2**16, 2**31, 2**32 - 1, 2**53 - 1, 2**53, 2**63, 2**64 - 1)
LYING_HEADS = tuple(
    bytes.fromhex(head)
    for head in (
        "ddffffffff",
        "dc4001",
        "dfffffffff",
        "deffff",
        "dbffffffff",
        "c6ffffffff",
        "c9ffffffff01",
        "c1",
        "d9ff",
        "c4ff",
        "9f",
        "8f",
    )
)
MANY = (16_384, 16_385, 16_385, 16_385, 60_000)


def vectors(*names: str) -> list[bytes]:
    """Return everything that stands as hex in the vectors of these names."""
    found: list[bytes] = []
    for name in names:
        for vector in json.loads((PROTOCOL / "vectors" / f"{name}.json").read_text()):
            keys = ("hex", "old", "new", "operations", "frame")
            found += [bytes.fromhex(vector[key]) for key in keys if isinstance(vector.get(key), str)]
    return found


def mutated(rng: random.Random, data: bytes, others: list[bytes]) -> bytes:
    """Return bytes that differ from `data` in a few places; a part may come from another input."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(changed) + 1)
        match rng.randrange(7):
            case 0 if at < len(changed):
                changed[at] ^= 1 << rng.randrange(8)
            case 1 if at < len(changed):
                changed[at] = rng.choice((0, 0x7F, 0x80, 0x90, 0xC0, 0xC1, 0xCF, 0xD3, 0xDD, 0xFF))
            case 2:
                del changed[at : at + rng.randint(1, 8)]
            case 3:
                changed[at:at] = rng.choice(LYING_HEADS)
            case 4:
                other = rng.choice(others)
                begin = rng.randrange(len(other) + 1)
                changed[at:at] = other[begin : begin + rng.randint(1, 64)]
            case 5:
                changed[at:at] = changed[at : at + rng.randint(1, 16)] * rng.randint(1, 8)
            case _:
                changed[at:at] = rng.randbytes(rng.randint(1, 9))
    return bytes(changed)


def nested(rng: random.Random, depth: int) -> bytes:
    """Return a value of `depth` lists and dicts inside one another."""
    return b"".join(rng.choice((b"\x91", b"\x81\xa1a", b"\x93\x00\xc0")) for _ in range(depth)) + b"\xc0"


def crowd(rng: random.Random) -> bytes:
    """Return an array of very many small things."""
    count = rng.choice(MANY)
    return b"\xdd" + count.to_bytes(4, "big") + rng.choice((b"\x01", b"\x80", b"\x90", b"\xc0")) * count


def value(rng: random.Random) -> bytes:
    """Return an encoded value: an ordinary one, a deep one, a crowd, or none at all."""
    match rng.randrange(200) if rng.random() < 0.8 else rng.randrange(1, 4) if rng.random() < 0.9 else 0:
        case 0:
            return nested(rng, rng.choice((1, 63, 64, 65, 500, 2000, 50_000)))
        case 1 if rng.random() < 0.1:
            return crowd(rng)
        case 2:
            return rng.randbytes(rng.randrange(20))
        case 3:
            return rng.choice(LYING_HEADS) + rng.randbytes(rng.randrange(9))
    return _packed(_plain(rng, 3))


def _plain(rng: random.Random, depth: int) -> Any:
    match rng.randrange(9 if depth else 6):
        case 0:
            return rng.choice((None, True, False))
        case 1:
            return rng.choice(EDGES) if rng.random() < 0.5 else -rng.choice(EDGES[:13])
        case 2:
            return rng.choice((0.0, -0.0, 1.5, float("inf"), float("nan")))
        case 3:
            return rng.choice(("", "a", "ä€", "x" * 40, "name"))
        case 4:
            return rng.randbytes(rng.randrange(12))
        case 5:
            return msgpack.ExtType(rng.choice((1, 2)), rng.randbytes(rng.choice((8, 8, 4))))
        case 6:
            return {rng.choice("abcdef"): _plain(rng, depth - 1) for _ in range(rng.randrange(4))}
    return [_plain(rng, depth - 1) for _ in range(rng.randrange(4))]


def _packed(plain: Any) -> bytes:
    return bytes(msgpack.packb(plain))


def operations(rng: random.Random) -> bytes:
    """Return operations of a delta: right in form more often than not, right in content less often."""
    match rng.randrange(8):
        case 0:
            return value(rng)
        case 1:
            depth = rng.choice((2, 60, 330, 500))
            return (
                rng.choice((b"\x94\x01\x80\x90\x81\xa1a", b"\x92\x00\x91\x93\x03\x00")) * depth
                + b"\x92\x00\x90"
            )
    return _packed(_operations(rng, 3))


def _operations(rng: random.Random, depth: int) -> Any:
    if rng.random() < 0.4:
        put = {rng.choice("abcx"): _plain(rng, 1) for _ in range(rng.randrange(3))}
        changed = {rng.choice("abcx"): _operations(rng, depth - 1) for _ in range(depth and rng.randrange(3))}
        return [
            1,
            put,
            [rng.choice("abcx") for _ in range(rng.randrange(2))],
            *([changed] if changed else []),
        ]
    steps: list[Any] = []
    for _ in range(rng.randrange(6)):
        match rng.randrange(5 if depth else 3):
            case 0:
                steps.append([0, rng.choice((0, 0, 1, -1)), rng.choice((0, 1, 3, 10, 10, 2**40))])
            case 1:
                steps.append([1, [_plain(rng, 1) for _ in range(rng.randrange(3))]])
            case 2:
                steps.append([2, rng.choice((0, 1, 2, 99)), {"a": 1}, rng.choice(([], ["b"], ["zz"], [7]))])
            case 3:
                steps += [[0, 0, 10]] * rng.choice((1, 20, 250))
            case _:
                steps.append([3, rng.choice((0, 1, 2, 99)), _operations(rng, depth - 1)])
    return [0, steps]


# ------------------------------------------------------------------------------ messages from the list


def message(rng: random.Random, side: str, wrong: float = 0.04) -> bytes:
    """Return a message of one side, each part of it wrong with a probability of `wrong`."""
    return encoded(rng, rng.choice(list(LISTED[side].values())), wrong)


def encoded(
    rng: random.Random, shape: dict[str, Any], wrong: float, given: dict[str, bytes] | None = None
) -> bytes:
    """Return an object of the list, with the encoded fields of `given` as they are."""
    parts = [_packed(shape["number"])] if "number" in shape else []
    for field in shape["fields"]:
        if field.get("optional") and rng.random() < 0.2:
            break
        exact = (given or {}).get(field["name"])
        parts.append(exact if exact is not None else _field(rng, field, wrong))
    if rng.random() < wrong:
        match rng.randrange(4):
            case 0:
                parts.pop(rng.randrange(len(parts)))
            case 1:
                parts += [value(rng) for _ in range(rng.randrange(4))]
            case 2:
                parts += [b"\xc0"] * rng.choice((1023, 1024, 1025, 3000))
            case _:
                parts.append(rng.choice((crowd(rng), nested(rng, rng.choice((1000, 1100))))))
    return head(len(parts)) + b"".join(parts)


def head(count: int) -> bytes:
    """Return the head of an array."""
    return bytes([0x90 | count]) if count < 16 else b"\xdc" + count.to_bytes(2, "big")


def _field(rng: random.Random, field: dict[str, Any], wrong: float) -> bytes:
    if rng.random() < wrong / 2:
        return value(rng)
    if (field.get("nil") or field.get("optional")) and rng.random() < 0.3:
        return b"\xc0"
    kind = field["type"]
    if kind.startswith("array of "):
        if rng.random() < wrong:
            return crowd(rng)
        inner = {"type": kind.removeprefix("array of ")}
        items = [_field(rng, inner, wrong) for _ in range(rng.randrange(4))]
        return head(len(items)) + b"".join(items)
    match kind:
        case "uint":
            return _packed(rng.choice(EDGES) if rng.random() < wrong * 3 else rng.randrange(300))
        case "text":
            return _packed(rng.choice(("", "a:b", "probe:notes", "ä" * 20)))
        case "bin":
            return _packed(rng.choice((value(rng), operations(rng), b"", bytes(16))))
        case "ChangeBody":
            return encoded(rng, rng.choice(list(LISTED["changes"].values())), wrong)
    return encoded(rng, LISTED["parts"][kind], wrong)
