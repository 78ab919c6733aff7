"""Who is let in: connections and requests, bounded for each address and each user.

An address has an account, which counts what it has open and what it may still ask for. An address behind which there may
be very many, of a private network or of a proxy, has none, and nothing is counted of it.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from headwater_protocol.errors import TransientError
from headwater_protocol.server_events import ActionRequested, MutationRequested, QuerySetModified

from headwater_server.identity.addresses import plain_address
from headwater_server.net.client_address import TrustedProxies, account_name
from headwater_server.net.token_bucket import Rate, TokenBucket

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from ipaddress import IPv4Address, IPv6Address

    from headwater_protocol.server_events import ServerEvent

    from headwater_server.observe.metrics import LimitMetrics

logger = logging.getLogger("headwater.admission")

_HANDSHAKE_SHARE = 4  # one address may have this part of all handshakes
_LOG_S = 60.0
_PLACE_WAIT_S = 1.0  # nobody knows when a place is free


class Place(Enum):
    """What a connection counts as; the value is the limit that bounds those of one address."""

    SESSION = "address_sessions_limit"
    HTTP = "address_http_connections_limit"


@dataclass(frozen=True, slots=True)
class AdmissionLimits:
    """Bounds; None: none.

    Attributes:
        places: Connections of one address.
        connections: New connections of one address.
        requests: Requests of one address.
        user_requests: Requests of one user.
        handshakes_max: TLS handshakes of all.
        private_counted: Private addresses have accounts as well.
        proxies: Whose word counts on who their clients are.
        idle_accounts_max: Accounts of addresses without a connection, and of users, that are kept.
    """

    places: dict[Place, int] = field(default_factory=dict)
    connections: Rate | None = None
    requests: Rate | None = None
    user_requests: Rate | None = None
    handshakes_max: int | None = None
    private_counted: bool = False
    proxies: TrustedProxies = field(default_factory=TrustedProxies)
    idle_accounts_max: int = 16_384


class Account:
    """What is counted of one address, or of the network of one subscriber.

    Attributes:
        name: The address or network.
        places: Its open connections.
        handshakes: Its TLS handshakes under way.
        connections: What is left of new connections, None without a limit.
        requests: What is left of requests, None without a limit.
    """

    __slots__ = ("connections", "handshakes", "name", "places", "requests")

    def __init__(self, name: str, limits: AdmissionLimits) -> None:
        self.name = name
        self.places = dict.fromkeys(Place, 0)
        self.handshakes = 0
        self.connections = None if limits.connections is None else TokenBucket(limits.connections)
        self.requests = None if limits.requests is None else TokenBucket(limits.requests)

    @property
    def is_idle(self) -> bool:
        """Whether it has no connection."""
        return not any(self.places.values())


class Seat:
    """The place that one connection has, until it is left."""

    __slots__ = ("_account", "_accounts", "_place")

    def __init__(self, accounts: Accounts | None = None, account: Account | None = None, place: Place = Place.HTTP) -> None:  # fmt: skip
        self._accounts = accounts
        self._account = account
        self._place = place

    def leave(self) -> None:
        """Give it back; once it is, nothing happens."""
        account, self._account = self._account, None
        if account is not None and self._accounts is not None:
            account.places[self._place] -= 1
            self._accounts.left(account)


class Accounts:
    """The accounts of addresses: all that have a connection, and of the others those that were used last."""

    def __init__(self, limits: AdmissionLimits) -> None:
        self._limits = limits
        self._open: dict[str, Account] = {}
        self._idle: OrderedDict[str, Account] = OrderedDict()

    def __len__(self) -> int:
        return len(self._open) + len(self._idle)

    def of(self, name: str) -> Account:
        """Return the account of an address."""
        account = self._open.get(name)
        if account is None:
            account = self._idle.pop(name, None) or Account(name, self._limits)
            self._keep(account)
        return account

    def seat(self, account: Account, place: Place) -> Seat:
        """Give a connection a place."""
        if self._idle.pop(account.name, None) is not None or account.is_idle:
            self._open[account.name] = account
        account.places[place] += 1
        return Seat(self, account, place)

    def left(self, account: Account) -> None:
        """A connection has ended."""
        if account.is_idle and self._open.pop(account.name, None) is not None:
            self._keep(account)

    def _keep(self, account: Account) -> None:
        self._idle[account.name] = account
        if len(self._idle) > self._limits.idle_accounts_max:
            self._idle.popitem(last=False)


class Arrival(NamedTuple):
    """A new connection that is let in.

    Attributes:
        account: Of its address; None: nothing is counted.
        forwards: It is of a proxy that says, in each request, who its client is.
        seat: Its place; left at its end.
    """

    account: Account | None
    forwards: bool
    seat: Seat


class TooSoon(NamedTuple):
    """A request that is not let in.

    Attributes:
        error: What its caller is told: `rate_limited`, with the time to wait.
        ends: Its connection has to end: it goes on in spite of being told.
    """

    error: TransientError
    ends: bool


class Admission:
    """Lets connections and requests in, or says how long to wait.

    Args:
        limits: Bounds.
        metrics: Counted in.
        mono_s: Monotonic clock.
    """

    def __init__(self, limits: AdmissionLimits, metrics: LimitMetrics, mono_s: Callable[[], float]) -> None:
        self._limits = limits
        self._metrics = metrics
        self._mono_s = mono_s
        self._accounts = Accounts(limits)
        self._users: OrderedDict[str, TokenBucket] = OrderedDict()
        self._handshakes = 0
        self._logged_s: dict[str, float] = {}
        metrics.handshakes.set_function(lambda: self._handshakes)
        metrics.accounts.set_function(lambda: len(self._accounts) + len(self._users))

    # ------------------------------------------------------------------ connections

    def arrive(self, peer: str, place: Place) -> Arrival | TransientError:
        """Let a new connection in.

        Args:
            peer: The address that it comes from.
            place: What it counts as.

        Returns:
            Why not, if it is not: `rate_limited`.
        """
        address = plain_address(peer)
        if self._limits.proxies.trusts(address):
            return Arrival(None, True, Seat())
        account = self._account_of(address)
        if account is None:
            return Arrival(None, False, Seat())
        wait_s = 0.0 if account.connections is None else account.connections.wait_s(self._mono_s())
        if wait_s > 0:
            what = "address_connections_limit_per_second"
            return self._refused(what, f"new connections come from {account.name}", wait_s, account.name)
        seat = self.sit(account, place)
        if isinstance(seat, TransientError):
            return seat
        if account.connections is not None:
            account.connections.take(self._mono_s())
        return Arrival(account, False, seat)

    def sit(self, account: Account | None, place: Place) -> Seat | TransientError:
        """Give a connection a place among those of its address; returns why not, if there is none left."""
        if account is None:
            return Seat()
        most = self._limits.places.get(place)
        if most is not None and account.places[place] >= most:
            return self._refused(
                place.value, f"connections are open from {account.name}", _PLACE_WAIT_S, account.name
            )
        return self._accounts.seat(account, place)

    def begin_handshake(self, account: Account | None) -> bool:
        """Count a TLS handshake that is to begin; False if it must not."""
        most = self._limits.handshakes_max
        if most is not None and (
            self._handshakes >= most
            or (account is not None and account.handshakes >= max(most // _HANDSHAKE_SHARE, 1))
        ):
            self._refused("tls_handshakes_limit", "TLS handshakes are under way", _PLACE_WAIT_S, "")
            return False
        self._handshakes += 1
        if account is not None:
            account.handshakes += 1
        return True

    def end_handshake(self, account: Account | None) -> None:
        """Count a TLS handshake that has ended, however."""
        self._handshakes -= 1
        if account is not None:
            account.handshakes -= 1

    def account_behind(self, forwarded: Sequence[str]) -> Account | None:
        """Return the account of the client that a trusted proxy forwards for, None if it has none.

        Args:
            forwarded: Values of `X-Forwarded-For`.
        """
        address = self._limits.proxies.client(forwarded)
        return None if address is None else self._account_of(address)

    def client_behind(self, forwarded: Sequence[str]) -> str | None:
        """Return the address of the client that a trusted proxy forwards for, None if it does not say."""
        address = self._limits.proxies.client(forwarded)
        return None if address is None else str(address)

    def _account_of(self, address: IPv4Address | IPv6Address) -> Account | None:
        if not (address.is_global or self._limits.private_counted):
            return None
        return self._accounts.of(account_name(address))

    # ------------------------------------------------------------------ requests

    def user(self, token_identifier: str) -> TokenBucket | None:
        """Return what is left of requests for a user, None without a limit."""
        rate, users = self._limits.user_requests, self._users
        if rate is None:
            return None
        bucket = users.get(token_identifier)
        if bucket is None:
            bucket = users[token_identifier] = TokenBucket(rate)
            if len(users) > self._limits.idle_accounts_max:
                users.popitem(last=False)
        else:
            users.move_to_end(token_identifier)
        return bucket

    def ask(self, account: Account | None, user: TokenBucket | None, cost: float = 1.0) -> TransientError | None:  # fmt: skip
        """Let a request in, and count it; returns why not, if it comes too soon."""
        now_s = self._mono_s()
        requests = None if account is None else account.requests
        if account is not None and requests is not None:
            wait_s = requests.wait_s(now_s, cost)
            if wait_s > 0:
                what = f"requests come from {account.name}"
                return self._refused("address_requests_limit_per_second", what, wait_s, account.name)
        if user is not None:
            wait_s = user.wait_s(now_s, cost)
            if wait_s > 0:
                return self._refused("user_requests_limit_per_second", "requests of this user come", wait_s, "")  # fmt: skip
            user.take(now_s, cost)
        if requests is not None:
            requests.take(now_s, cost)
        return None

    def charge(self, account: Account | None, user: TokenBucket | None, cost: float) -> float:
        """Count what cannot be refused; returns how long no more of its caller should be read, so that the rate is kept."""
        now_s = self._mono_s()
        pause_s = 0.0
        for bucket in (user, None if account is None else account.requests):
            if bucket is not None:
                bucket.take(now_s, cost)
                pause_s = max(pause_s, bucket.owes_s(now_s))
        return pause_s

    def goes_on_too_long(self, refusals: TokenBucket) -> bool:
        """Count a refusal; tell whether its client goes on in spite of being told."""
        now_s = self._mono_s()
        if refusals.wait_s(now_s) > 0:
            return True
        refusals.take(now_s)
        return False

    def refusals(self) -> TokenBucket | None:
        """Return a bucket for what one connection may be refused: as much again as it may ask for."""
        rate = self._limits.requests or self._limits.user_requests
        return None if rate is None else TokenBucket(rate)

    def _refused(self, limit: str, what: str, wait_s: float, address: str) -> TransientError:
        self._metrics.refusals.labels(limit).inc()
        now_s = self._mono_s()
        last_s = self._logged_s.get(limit)
        if last_s is None or now_s - last_s >= _LOG_S:
            self._logged_s[limit] = now_s
            logger.warning("limit_met", extra={"fields": {"limit": limit, "address": address}})
        wait_s = max(round(wait_s, 3), 0.001)
        return TransientError(
            f"too many {what} (`{limit}`); try again in {wait_s:g} s",
            code="rate_limited",
            data={"retry_after_s": wait_s},
        )


class Allowance:
    """What one session may still ask for: by its address, and as its user once it is known.

    Args:
        admission: Counts.
        account: Of its address, None if it has none.
        later: Calls something after so many seconds.
        pause_max_s: After that something is read of a client that owes much: it would seem silent, be cut off, and come
            back with all of it.

    Attributes:
        owes: It has asked for more than it may, and nothing of that could be refused: no more of it should be read.
        earned: Called when that has passed.
    """

    __slots__ = ("_account", "_admission", "_later", "_pause_max_s", "_refusals", "_user", "earned", "owes")

    def __init__(
        self,
        admission: Admission,
        account: Account | None,
        later: Callable[[float, Callable[[], None]], object],
        pause_max_s: float,
    ) -> None:
        self._admission = admission
        self._account = account
        self._later = later
        self._pause_max_s = pause_max_s
        self._user: TokenBucket | None = None
        self._refusals: TokenBucket | None = None  # from the first refusal on
        self.owes = False
        self.earned: Callable[[], None] | None = None

    def be(self, token_identifier: str | None) -> None:
        """The session is this user's from now on; None: nobody's, or of the holder of a key."""
        self._user = None if token_identifier is None else self._admission.user(token_identifier)

    def judge(self, event: ServerEvent) -> TooSoon | None:
        """Let what a client asks for in; returns how not, if it comes too soon.

        A mutation that may have been sent before cannot be refused: it may have taken effect. Nor can queries. Both
        count, and what is owed for them is waited for before more of the client is read.
        """
        account, user = self._account, self._user
        if account is None and user is None:
            return None
        match event:
            case MutationRequested(sent_ts=None) | ActionRequested():
                error = self._admission.ask(account, user)
                return None if error is None else TooSoon(error, self._goes_on())
            case MutationRequested():
                self._wait(self._admission.charge(account, user, 1.0))
            case QuerySetModified(add):
                self._wait(self._admission.charge(account, user, float(max(len(add), 1))))
        return None

    def _wait(self, pause_s: float) -> None:
        if pause_s > 0 and not self.owes:
            self.owes = True
            self._later(min(pause_s, self._pause_max_s), self._go_on)

    def _go_on(self) -> None:
        self.owes = False
        if self.earned is not None:
            self.earned()

    def _goes_on(self) -> bool:
        if self._refusals is None:
            self._refusals = self._admission.refusals()
        return self._refusals is not None and self._admission.goes_on_too_long(self._refusals)
