"""What the reactive core is given: its settings, the window of recent commits, and a way to act.

Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from headwater_server.reactive.rounds import RoundLimits

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from headwater_storage.proposal import CommitTs, Range

    from headwater_server.reactive.moves import Moved
    from headwater_server.reactive.sessions import QueryKey, Session


@dataclass(frozen=True, slots=True)
class ReactiveOptions:
    """Settings of the core.

    Attributes:
        bundle_key: Document key of the row that names the active bundle. A commit that
            writes it brings outdated workers back and retries killed queries.
        rounds: How rounds are formed.
        delta_ring_bytes: Recent results kept as bases of deltas.
        body_memo_bytes: Encoded changes kept for further clients that need the same.
        parked_bytes: Results and their keys kept, while they are right, that nobody looks at any more.
        causes_kept: Causes of the newest reruns that are kept, of all live queries together.
        strikes: So many deaths of a worker during a query make it a killed one.
        retry_first_ms: Pause before a killed query is tried again; doubles each time.
        retry_longest_ms: Upper bound of that pause.
        killed_cost_ms: What a killed query is taken to cost from then on, at least.
        new_query_ms: What a query is taken to cost before its function first ran.
        cost_weight: Weight of the newest run in the moving averages.
        function_names: So many functions have their cost remembered.
    """

    bundle_key: bytes | None = None
    rounds: RoundLimits = field(default_factory=RoundLimits)
    delta_ring_bytes: int = 32 << 20
    body_memo_bytes: int = 16 << 20
    parked_bytes: int = 16 << 20
    causes_kept: int = 4_096
    strikes: int = 2
    retry_first_ms: float = 1_000.0
    retry_longest_ms: float = 300_000.0
    killed_cost_ms: float = 1_000.0
    new_query_ms: float = 1.0
    cost_weight: float = 0.3
    function_names: int = 4_096


class Effects(Protocol):
    """What the core has done by its surroundings.

    No method may call the core, with one exception: `deliver` may call `block` and `disconnect`.
    It must not raise: it is called in the middle of a step.
    """

    def open_round(self, worker: int, round: int) -> None:  # noqa: A002
        """Have the worker open a read transaction; answered by `round_opened`."""

    def run_query(
        self, worker: int, round: int, call: int, key: QueryKey, identity: bytes | None  # noqa: A002
    ) -> None:  # fmt: skip
        """Have a query run in the round; answered by `query_done`, in the order of the calls."""

    def close_round(self, worker: int, round: int) -> None:  # noqa: A002
        """Have the worker close the round's transaction."""

    def deliver(self, session: Session, answers: Sequence[Any], moved: Moved | None) -> None:
        """Send the answers, then the transition."""


class Window(Protocol):
    """Conflict keys of recent commits, back to `ReactiveCore.oldest_ts()` at least."""

    def first_touch(
        self, after_ts: CommitTs, points: Collection[bytes], ranges: Sequence[Range]
    ) -> CommitTs | None:
        """Return the first commit ts above `after_ts` that wrote any of this; None if none did."""
