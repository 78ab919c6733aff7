"""What the protocol's vectors are made of: one sample for each form, and input that must be refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from headwater_protocol import codec, values
from headwater_protocol import messages as m
from headwater_protocol.limits import CONNECT_FRAME_BYTES

SESSION, INCARNATION, DIGEST = bytes(range(16)), bytes(range(16, 32)), bytes(range(32, 48))
ARGUMENTS = values.pack_value({"channel": "3k", "limit": 50})
TS = 1_795_216_694_370_000
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

CLIENT = {
    "connect for the first time": m.Connect((1,), SESSION, 0, None, "headwater-python/0.1"),
    "connect again": m.Connect((1, 2), SESSION, TS, INCARNATION, "é"),
    "subscribe and unsubscribe": m.ModifyQuerySet(
        0,
        1,
        (m.AddQuery(7, "messages:list", ARGUMENTS), m.AddQuery(8, "a/b:c", ARGUMENTS, b"journal", DIGEST)),
        (3, 4),
    ),
    "an empty modification": m.ModifyQuerySet(300, 70_000, (), ()),
    "mutation": m.Mutation(127, "messages:send", ARGUMENTS),
    "mutation with long arguments": m.Mutation(128, "messages:send", bytes(300)),
    "mutation that was sent before": m.Mutation(129, "messages:send", ARGUMENTS, 127, TS),
    "mutation in a span": m.Mutation(131, "messages:send", ARGUMENTS, 0, 0, TRACEPARENT),
    "action in a span": m.Action(132, "mail:send", ARGUMENTS, 0, TRACEPARENT),
    "action": m.Action(2**53 - 1, "mail:send", ARGUMENTS),
    "action whose pieces are asked for": m.Action(130, "answers:words", ARGUMENTS, 65_536),
    "pieces were taken": m.ActionCredit(130, 300),
    "action that nobody waits for any more": m.CancelAction(130),
    "sign in": m.Authenticate(0, "token"),
    "sign out": m.Authenticate(1, None),
    "ping": m.Ping(2**32),
    "pong": m.Pong(0),
}
SERVER = {
    "welcome": m.Welcome(1, INCARNATION, TS, 16_777_216, 15_000),
    "welcome from a server that streams": m.Welcome(1, INCARNATION, TS, 16_777_216, 15_000, 65_536),
    "piece of an action": m.ActionPiece(130, b"\xa4word"),
    "transition with every kind of change": m.Transition(
        m.Version(0, 0, 0),
        m.Version(1, 0, TS),
        (
            m.Change(7, m.Value(b"\x90", DIGEST, b"journal")),
            m.Change(8, m.Delta(b"\x92\x00\x90", DIGEST)),
            m.Change(9, m.Unchanged(DIGEST)),
            m.Change(10, m.Failed(m.ErrorBody("application_error", "no such channel", b"\xa1x"))),
            m.Change(11, m.Removed()),
        ),
    ),
    "empty transition": m.Transition(m.Version(1, 0, TS), m.Version(1, 0, TS + 1), ()),
    "transition with twenty changes": m.Transition(
        m.Version(1, 0, 5),
        m.Version(2, 1, 6),
        tuple(m.Change(query, m.Removed()) for query in range(120, 140)),
    ),
    "mutation succeeded": m.MutationAnswer(1, TS, b"\xc0", None),
    "mutation failed": m.MutationAnswer(1, TS, None, m.ErrorBody("invalid_arguments", "expected `int`")),
    "action succeeded": m.ActionAnswer(2, b"\x01", None),
    "action failed": m.ActionAnswer(2, None, m.ErrorBody("internal_error", "")),
    "token refused": m.AuthError(0, "the token has expired"),
    "fatal": m.FatalError(m.ErrorBody("unsupported_version", "no protocol version in common")),
    "ping": m.Ping(1),
    "pong": m.Pong(1),
}
VALUES = {
    "null": None, "false": False, "true": True, "zero": 0, "small": 127, "byte": 128, "negative": -32,
    "negative byte": -33, "beyond a double": 2**53 + 1, "largest": 2**63 - 1, "smallest": -(2**63),
    "one as a float": 1.0, "negative zero": -0.0, "infinity": float("inf"), "not a number": float("nan"),
    "empty text": "", "text": "grüße 🐟", "text of 32 bytes": "x" * 32, "text of 256 bytes": "x" * 256,
    "bytes": b"\x00\xff", "list": [1, [], "a"], "list of sixteen": list(range(16)),
    "dict": {"b": 1, "a": {"c": None}}, "marked": values.Int64(5), "marked negative": values.Int64(-(2**63)),
    "whole second": datetime(2026, 11, 21, tzinfo=UTC), "microsecond": datetime(2026, 11, 21, 1, 2, 3, 4, tzinfo=UTC),
    "other zone": datetime(2026, 11, 21, 2, tzinfo=timezone(timedelta(hours=2))),
    "before 1970": datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC), "far": datetime(9999, 1, 1, tzinfo=UTC),
}  # fmt: skip
ROWS = [{"_id": "a", "n": 1}, {"_id": "b", "n": 2, "x": [1]}, {"_id": "c", "n": 3}]
DELTAS: dict[str, tuple[Any, Any]] = {
    "insert in front": (ROWS, [0, [[1, [{"_id": "z"}]], [0, 0, 3]]]),
    "remove the first": (ROWS, [0, [[0, 1, 2]]]),
    "move the last to the front": (ROWS, [0, [[0, 2, 1], [0, 0, 2]]]),
    "change fields of one element": (ROWS, [0, [[0, 0, 1], [2, 1, {"n": 5, "y": None}, ["x"]], [0, 2, 1]]]),
    "the same element twice": (ROWS, [0, [[0, 0, 1], [0, 0, 1]]]),
    "everything goes": (ROWS, [0, []]),
    "fields of a dict": ({"a": 1, "b": 2}, [1, {"a": 1.0, "c": []}, ["b"]]),
    "a list in a dict": (
        {"page": ROWS, "isDone": False},
        [1, {"isDone": True}, [], {"page": [0, [[0, 1, 2], [1, [7]]]]}],
    ),
    "a list in an element": ([[1], [2]], [0, [[0, 0, 1], [3, 1, [0, [[0, 0, 1], [1, [3]]]]]]]),
    "a dict in an element": (
        [{"in": {"n": 1, "m": 2}}],
        [0, [[3, 0, [1, {}, [], {"in": [1, {"n": 2}, ["m"]]}]]]],
    ),
}
BAD: dict[str, tuple[str, bytes]] = {
    "nothing": ("client", b""), "not an array": ("client", b"\x81\x01\x02"), "an empty array": ("client", b"\x90"),
    "an unknown number": ("client", b"\x91\x63"), "a server's message": ("client", codec.encode_message(SERVER["fatal"])),
    "the unused byte": ("client", b"\x92\x06\xc1"), "a field missing": ("client", b"\x93\x03\x01\xa1x"),
    "text for a number": ("client", b"\x92\x06\xa11"), "a float for a number": ("client", b"\x92\x06\xca\x00\x00\x00\x00"),
    "a negative number": ("client", b"\x92\x06\xff"), "a number beyond 2^53": ("client", b"\x92\x06\xcf\x00\x20" + bytes(6)),
    "text that is not UTF-8": ("client", b"\x94\x03\x01\xa1\xff\xc4\x00"), "text for bytes": ("client", b"\x94\x03\x01\xa1x\xa0"),
    "a length that lies": ("client", b"\x94\x03\x01\xa1x\xc6\xff\xff\xff\xff"),
    "a list length that lies": ("client", b"\x95\x02\x00\x01\xdd\xff\xff\xff\xff\x90"),
    "cut in the middle": ("client", codec.encode_message(CLIENT["subscribe and unsubscribe"])[:-9]),
    "bytes behind the message": ("client", b"\x92\x06\x01\x00"), "deep nesting in a field": ("client", b"\x92\x06" + b"\x91" * 5000),
    "too much behind the known fields": ("client", b"\x93\x06\x01" + b"\xdc\x07\xd0" + b"\xc0" * 2000),
    "an unknown change": ("server", b"\x94\x22\x93\x00\x00\x00\x93\x00\x00\x01\x91\x92\x01\x91\x09"),
    "a version of two numbers": ("server", b"\x94\x22\x92\x00\x00\x93\x00\x00\x01\x90"),
    "no value": ("value", b""), "two values": ("value", b"\x01\x02"), "value cut": ("value", b"\x92\x01"),
    "a number as key": ("value", b"\x81\x01\x02"), "an unknown extension": ("value", b"\xd4\x07\x00"),
    "an Int64 of four bytes": ("value", b"\xd6\x01\x00\x00\x00\x00"), "a value of bad text": ("value", b"\xa1\xff"),
    "a range outside the list": ("delta", values.pack_value([0, [[0, 1, 3]]])), "an element outside the list": ("delta", values.pack_value([0, [[2, 3, {}, []]]])),
    "an unknown operation": ("delta", values.pack_value([0, [[4, 1]]])), "dict operations for a list": ("delta", values.pack_value([1, {}, []])),
    "a field that is not there": ("delta", values.pack_value([0, [[2, 0, {}, ["q"]]]])),
    "a field both put and changed": ("delta", values.pack_value([0, [[3, 0, [1, {"_id": {}}, [], {"_id": [1, {}, []]}]]]])),
    "a frame above the limit": ("frame", (CONNECT_FRAME_BYTES + 1).to_bytes(4, "big")),
}  # fmt: skip
