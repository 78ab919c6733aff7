"""Both sessions joined by a link that is cut at random, in front of a model server of plain dicts.

The link loses whatever was under way when it is cut, in either direction, and nothing
else. The model applies a mutation exactly once for each (session, request), as the real
server does by its request rows, and answers a repeated one from what it stored.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from headwater_protocol.client_events import (
    ActionResolved,
    AuthenticationFailed,
    IdentityChanged,
    IdentityLost,
    Moved,
    MutationResolved,
    QueryFailed,
    ValueChanged,
)
from headwater_protocol.codec import decode_server_message, encode_change_body
from headwater_protocol.errors import ApplicationError, HeadwaterError, RequestError
from headwater_protocol.failures import error_body
from headwater_protocol.limits import ServerLimits
from headwater_protocol.messages import AddQuery, Delta, Failed, Transition, Unchanged, Value
from headwater_protocol.server_events import (
    ActionRequested,
    AuthenticateRequested,
    Connected,
    MutationRequested,
    QuerySetModified,
    SendFrame,
    ServerEvent,
)
from headwater_protocol.server_session import ServerSession
from headwater_protocol.values import pack_value, unpack_value

if TYPE_CHECKING:
    from headwater_protocol.client_session import ClientSession


@dataclass
class Model:
    """The database: a list of rows and its history by ts."""

    ts: int = 100
    rows: list[dict[str, Any]] = field(default_factory=list)
    history: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    outcomes: dict[tuple[bytes, int], tuple[int, bytes | None, Any]] = field(default_factory=dict)
    effects: list[tuple[bytes, int]] = field(default_factory=list)
    ran_as: dict[int, str | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.history[self.ts] = []

    def commit(self, rows: list[dict[str, Any]]) -> None:
        self.ts += 1
        self.rows = rows
        self.history[self.ts] = rows

    def query(self, name: str, limit: int, identity: str | None, rows: list[dict[str, Any]]) -> Any:
        if name == "fails:sometimes" and len(rows) % 3 == 2:
            raise ApplicationError({"rows": len(rows)})
        if name == "who:am_i":
            return {"identity": identity, "rows": len(rows)}
        return rows[-limit:]

    def mutate(self, session: bytes, asked: MutationRequested, user: str | None) -> None:
        request, name, arguments = asked.request, asked.name, unpack_value(asked.arguments)
        assert self.ran_as.setdefault(request, user) == user, "sent again as somebody else's"
        if (session, request) in self.outcomes:
            return
        if name == "fail":
            self.outcomes[session, request] = (self.ts, None, error_body(ApplicationError("refused")))
            return
        rows = [dict(row) for row in self.rows]
        if name == "touch" and rows:
            rows[arguments["at"] % len(rows)]["n"] += 1
        elif name == "drop" and rows:
            del rows[arguments["at"] % len(rows)]
        else:
            rows.append({"_id": f"r{self.ts}", "n": 0})
        self.effects.append((session, request))
        self.commit(rows)
        self.outcomes[session, request] = (self.ts, pack_value({"did": name, "request": request}), None)


def list_operations(old: list[Any], new: list[Any]) -> bytes:
    """Return simple operations: the common head and tail are kept, one changed row is patched."""
    head = 0
    while head < min(len(old), len(new)) and old[head] == new[head]:
        head += 1
    ops: list[Any] = [[0, 0, head]] if head else []
    if len(old) == len(new) and head < len(old):
        patch = {key: value for key, value in new[head].items() if old[head].get(key) != value}
        ops.append([2, head, patch, [key for key in old[head] if key not in new[head]]])
        head += 1
    if new[head:]:
        ops.append([1, new[head:]])
    return pack_value([0, ops])


class Connection:
    """The server's side of one connection, with what it has sent the client last."""

    def __init__(self, model: Model, rng: random.Random) -> None:
        self.model = model
        self.rng = rng
        self.session = ServerSession(ServerLimits())
        self.client = b""
        self.user: str | None = None
        self.token: str | None = None
        self.verdict_due = False
        self.lost = False
        self.shown_to: list[str | None] = []  # users, of the transitions sent
        self.queries: dict[int, AddQuery] = {}
        self.shown: dict[int, tuple[bytes, Any]] = {}
        self.queue: list[tuple[MutationRequested, str | None]] = []
        self.out: list[bytes] = []
        self.due = False

    def receive(self, frame: bytes) -> None:
        for event in self.session.receive(frame):
            self.handle(event)

    def handle(self, event: ServerEvent) -> None:
        match event:
            case Connected(connect):
                self.client = connect.session
                assert connect.last_ts <= self.model.ts
                self.out.append(self.session.welcome(b"i" * 16, self.model.ts))
            case QuerySetModified(add, remove):
                self.queries.update({added.query: added for added in add})
                for query in remove:
                    del self.queries[query]
                    self.shown.pop(query, None)
                self.due = True
            case MutationRequested() if self.lost and event.sent_ts is not None:
                raise ConnectionResetError  # it may have taken effect: no answer would be right
            case MutationRequested() if self.lost:
                error = error_body(RequestError("its token does not hold any more", code="unauthenticated"))
                ts = self.model.ts
                self.out.append(self.session.mutation_answer(event.request, ts, None, error))
                self.due = True
            case MutationRequested():
                self.queue.append((event, self.user))
            case ActionRequested(request, _, arguments):
                self.out.append(self.session.action_answer(request, arguments))
            case AuthenticateRequested(_, token):
                self.token, self.verdict_due = token, True
            case SendFrame(frame):
                self.out.append(frame)

    def step(self) -> None:
        """Do one of the things a server may do now."""
        if self.verdict_due and self.rng.random() < 0.5:
            self.verdict_due = False
            if self.token == "bad":
                frame, released = self.session.authentication_refused("no such token")
                self.out.append(frame)
            else:
                released = self.session.authenticated()
                self.user = None if self.token is None else self.token.partition(" ")[0]
                self.lost = False
                self.due = True
            for event in released:
                self.handle(event)
        if self.user is not None and self.rng.random() < 0.03:
            self.out.append(self.session.identity_lost("it has run out"))
            self.user = None
            self.lost = self.due = True
        if self.queue and self.rng.random() < 0.7:
            event, user = self.queue.pop(0)
            fresh = (self.client, event.request) not in self.model.outcomes
            self.model.mutate(self.client, event, user)
            if self.rng.random() < 0.1:
                raise ConnectionResetError  # committed, but the answer never leaves
            ts, value, error = self.model.outcomes[self.client, event.request]
            committed = fresh and value is not None
            self.out.append(
                self.session.mutation_answer(event.request, ts, value, error, committed=committed)
            )
            self.due = True
        if (
            self.session.is_open
            and (self.due or self.session.version.ts < self.model.ts)
            and self.rng.random() < 0.5
        ):
            self.due = False
            self.shown_to.append(self.user)
            self.out.append(self.session.transition(self.model.ts, self.changes()))

    def changes(self) -> list[tuple[int, bytes]]:
        changes = []
        for number, added in list(self.queries.items()):
            self.queries[number] = replace(added, digest=None)  # "unchanged" may only come first
            limit = unpack_value(added.arguments)["limit"]
            try:
                value = self.model.query(added.name, limit, self.user, self.model.rows)
            except HeadwaterError as error:
                self.shown.pop(number, None)
                changes.append((number, encode_change_body(Failed(error_body(error)))))
                continue
            digest = pack_value(value)[:1] + str(hash(pack_value(value))).encode()
            held = self.shown.get(number)
            if held is not None and held[0] == digest:
                continue
            if held is None and added.digest == digest:
                body: Any = Unchanged(digest)
            elif held is not None and isinstance(value, list) and self.rng.random() < 0.7:
                body = Delta(list_operations(held[1], value), digest)
            else:
                body = Value(pack_value(value), digest)
            self.shown[number] = (digest, value)
            changes.append((number, encode_change_body(body)))
        return changes


class Run:
    """One random history of one client."""

    def __init__(self, seed: int, client: ClientSession) -> None:
        self.rng = random.Random(seed)
        self.model = Model()
        self.client = client
        self.connection: Connection | None = None
        self.to_server: list[bytes] = []
        self.to_client: list[bytes] = []
        self.values: dict[int, Any] = {}
        self.names: dict[int, tuple[str, int]] = {}
        self.asked: set[int] = set()
        self.resolved: dict[int, Any] = {}
        self.actions: set[int] = set()
        self.acted: set[int] = set()
        self.user: str | None = None
        self.asked_as: dict[int, str | None] = {}
        self.tokens = 0
        self.needs_token = False
        self.was_open = False
        self.adopted: set[int] = set()  # called before the first connection, and then somebody signed in
        self.shown_to: str | None = None
        self.cuts = 0

    def open(self) -> None:
        self.client.connect()
        self.connection = Connection(self.model, self.rng)
        self.to_server, self.to_client = [], []

    def cut(self) -> None:
        self.connection = None
        self.shown_to = None
        self.cuts += 1
        self.apply(self.client.disconnected())

    def caller(self) -> None:
        """Let the user of the client do something."""
        match self.rng.choice(["query", "query", "drop", "mutate", "mutate", "mutate", "act", "token"]):
            case "query" if len(self.names) < 5:
                name = self.rng.choice(["rows:list", "fails:sometimes", "who:am_i"])
                limit = self.rng.randint(1, 5)
                self.names[self.client.subscribe(name, pack_value({"limit": limit}))] = (name, limit)
            case "drop" if self.names:
                query = self.rng.choice(list(self.names))
                self.client.unsubscribe(query)
                del self.names[query]
                self.values.pop(query, None)
            case "mutate":
                name = self.rng.choice(["add", "add", "touch", "drop", "fail"])
                request = self.client.mutate(name, pack_value({"at": self.rng.randrange(10)}))
                self.asked.add(request)
                self.asked_as[request] = self.user
            case "act":
                self.actions.add(self.client.act("echo", pack_value(1)))
            case "token" if self.rng.random() < 0.3:
                self.sign_in(self.rng.choice(["ada", "bob", "bad", None]))

    def sign_in(self, user: str | None) -> None:
        """Be another user from now on."""
        self.user, self.needs_token = user, False
        if not self.was_open:
            self.adopted |= self.asked
        self.client.authenticate(user)
        self.apply(self.client.take_events())

    def renew_token(self) -> None:
        """Give the client a fresh token, or sign a user out whose tokens are bad."""
        if self.user in (None, "bad"):
            self.sign_in(None)
        else:
            self.needs_token = False
            self.tokens += 1
            self.client.authenticate(f"{self.user} {self.tokens}", refresh=True)

    def apply(self, events: list[Any]) -> None:
        """Take events as an application would, checking what clients rely on."""
        for event in events:
            match event:
                case ValueChanged(query, value):
                    assert query in self.names, "an event for a query that was dropped"
                    self.values[query] = value
                case QueryFailed(query, error):
                    self.values[query] = error.data
                case MutationResolved(request, value, error):
                    assert request in self.asked
                    assert request not in self.resolved, "resolved twice"
                    self.resolved[request] = error or value
                    if error is not None and error.code == "unauthenticated":
                        assert (b"s" * 16, request) not in self.model.effects, "it was run"
                    if error is None:
                        ts = self.model.outcomes[b"s" * 16, request][0]
                        assert ts <= self.client.last_ts, "resolved before its effect was visible"
                        assert value["request"] == request
                        ran_as = self.model.ran_as[request]
                        assert request in self.adopted or ran_as == self.asked_as[request], (
                            "run as somebody else's"
                        )
                case ActionResolved(request):
                    assert request in self.actions
                    assert request not in self.acted, "resolved twice"
                    self.acted.add(request)
                case AuthenticationFailed() | IdentityLost():
                    self.needs_token = True
                case IdentityChanged():
                    pass
                case Moved(ts):
                    self.check_values(ts)

    def check_values(self, ts: int) -> None:
        rows = self.model.history[ts]
        for query, value in self.values.items():
            name, limit = self.names[query]
            if name == "who:am_i":
                assert value == {"identity": self.shown_to, "rows": len(rows)}
                continue
            try:
                expected = self.model.query(name, limit, None, rows)
            except ApplicationError as error:
                expected = error.data
            assert value == expected, (query, name, ts)

    def step(self, *, quiet: bool = False) -> None:
        if not quiet and self.rng.random() < 0.3:
            self.caller()
        if self.needs_token and self.rng.random() < 0.3:
            self.renew_token()
        if self.connection is None:
            self.open()
        elif not quiet and self.rng.random() < 0.03:
            return self.cut()
        assert self.connection is not None
        try:
            self.to_server += self.client.take_frames()
            if self.to_server and self.rng.random() < 0.7:
                self.connection.receive(self.to_server.pop(0))
            self.connection.step()
            self.to_client += self.connection.out
            self.connection.out = []
            if self.to_client and self.rng.random() < 0.7:
                frame = self.to_client.pop(0)
                self.was_open = True
                if isinstance(decode_server_message(frame), Transition):
                    self.shown_to = self.connection.shown_to.pop(0)
                self.apply(self.client.receive(frame))
        except ConnectionResetError:
            self.cut()
        return None
