"""The frames between daemon and function worker: plain arrays, decoded straight into structs.

Each frame is a u32 big-endian length and a msgpack array whose first element is the tag.
The daemon never decodes `content`, `arguments` or `outcome`.
"""

from __future__ import annotations

from typing import Literal

import msgspec
from headwater_storage.proposal import Proposal, Range  # noqa: TC002 (msgspec resolves them)

from headwater_server.worker.explained import Explained  # noqa: TC001 (likewise)
from headwater_server.worker.token_messages import SignToken, VerifyLogin


class _Message(msgspec.Struct, array_like=True, frozen=True, gc=False):
    pass


class Failure(_Message, frozen=True):
    """Why a call has no value.

    Attributes:
        code: A code of the error table; `internal_error` hides message and trace from clients in production.
        message: For the caller.
        data: Encoded data of an application error.
        trace: Python traceback for the developer's log, "" if there is none.
    """

    code: str
    message: str
    data: bytes | None = None
    trace: str = ""


REQUEST_NUMBER_BYTES = 8
"""A request row's suffix is the session id and, in so many bytes big-endian, the request number."""


class Request(_Message, frozen=True):
    """Names a mutation of a session, so that it takes effect once.

    Attributes:
        session: The client's name across connections.
        number: Rises within the session; a resend has the same.
        fingerprint: Digest of function, arguments and user; a resend must have the same.
        forget_below: The client needs no outcomes of requests below this number.
        sent_ts: Newest ts the client had seen when it first sent it; None: nobody can have
            sent it before the client's present connection.
    """

    session: bytes
    number: int
    fingerprint: bytes
    forget_below: int = 0
    sent_ts: int | None = None

    @property
    def row(self) -> bytes:
        """Suffix of its row in `_requests`."""
        return self.session + self.number.to_bytes(REQUEST_NUMBER_BYTES, "big")


# ---------------------------------------------------------------------------------- daemon to worker


class OpenRound(_Message, frozen=True, tag=1):
    """Open one read transaction and keep it until `CloseRound`; answered by `RoundOpened`."""

    round: int


class RunQuery(_Message, frozen=True, tag=2):
    """Run a query in the round's transaction, or in a fresh one when `round` is 0.

    `now_us` is the call's time, unless its snapshot is newer.
    """

    call: int
    round: int
    now_us: int
    name: str
    arguments: bytes
    identity: bytes | None = None
    journal: bytes | None = None
    internal: bool = False


class RunMutation(_Message, frozen=True, tag=3):
    """Run a mutation over a fresh snapshot, or as the next member of a chain over those before it.

    Attributes:
        call: Number of the call on this link.
        name: Function.
        arguments: Encoded map.
        identity: Encoded identity, None if there is none.
        request: What it is remembered by; None: it is not.
        now_us: The call's time, unless its snapshot is newer.
        internal: Whether internal functions may be called.
        chain: Number of the chain; 0: of none. A new number begins a new chain.
        settled: How many of the chain's members are published.
        settled_ts: As of the last of them.
        published_ts: For a member of a chain: the published ts when it was sent. Its client
            may have seen that, though the chain's snapshot is older; 0 for others.
        job: Id of the scheduled job that this is; "": of none. One that is not pending is not run.
    """

    call: int
    name: str
    arguments: bytes
    identity: bytes | None
    request: Request | None
    now_us: int
    internal: bool = False
    chain: int = 0
    settled: int = 0
    settled_ts: int = 0
    published_ts: int = 0
    job: str = ""


class CloseRound(_Message, frozen=True, tag=4):
    """Close the round's transaction."""

    round: int


class Describe(_Message, frozen=True, tag=5):
    """Ask a fresh worker for the manifest of the bundle it loaded; answered by `Described`."""


class EndChain(_Message, frozen=True, tag=6):
    """Close the chain's snapshot, if it is still open: all its members are decided."""

    chain: int


class CheckDocuments(_Message, frozen=True, tag=7):
    """Check documents against the worker's bundle, whether that is active or not; answered by `DocumentsChecked`.

    Attributes:
        table: Number of the table.
        next: Document key at which to go on; empty: the first.
        keys: Check these and no others, if there are any.
        question: Which this is, of those that are not answered yet.
    """

    table: int
    next: bytes
    keys: list[bytes]
    question: int = 0


class RewriteDocuments(_Message, frozen=True, tag=8):
    """Bring some documents of an earlier shape to the current one; answered by `DocumentsRewritten`.

    Attributes:
        table: Number of the table.
        documents_max: So many.
        now_us: Time of the transaction, unless its snapshot is newer.
        question: As in `CheckDocuments`.
    """

    table: int
    documents_max: int
    now_us: int
    question: int = 0


class RouteRequest(_Message, frozen=True):
    """All of a request to a route but its body; as `headwater.http_messages.RequestHead`."""

    method: str
    path: str
    query: str
    headers: list[tuple[str, str]]
    address: str


class RunAction(_Message, frozen=True, tag=9):
    """Run an action, or a route; answered by `ActionDone`. Numbers of calls rise, and they are begun in that order.

    Attributes:
        call: Number of the call on this link.
        name: Function.
        arguments: Encoded map.
        identity: Encoded identity, None if there is none.
        internal: Whether internal functions may be called.
        window: Its caller takes pieces, and so many bytes of them may be on their way; 0: it
            takes one result, which is the list of all pieces if the function streams.
        request: It is a route that is asked this, and its arguments are a map of texts: the parts of its path.
            It answers with `AnswerHead` and then with pieces that are bytes of the body.
    """

    call: int
    name: str
    arguments: bytes
    identity: bytes | None
    internal: bool
    window: int
    request: RouteRequest | None = None


class StopAction(_Message, frozen=True, tag=10):
    """Cancel an action; `ActionDone` follows.

    Attributes:
        call: Number of the call.
        caller_left: Only if it is one that ends with its caller.
    """

    call: int
    caller_left: bool


class CreditAction(_Message, frozen=True, tag=11):
    """The caller has taken so many bytes of an action's pieces."""

    call: int
    size: int


class NestedDone(_Message, frozen=True, tag=12):
    """What an action asked for is over: its encoded result, or why there is none."""

    call: int
    number: int
    content: bytes | None
    failure: Failure | None


class KnowTables(_Message, frozen=True, tag=13):
    """Tables by their numbers, by which ids name them; comes before the first action."""

    tables: dict[int, str]


class FeedBody(_Message, frozen=True, tag=15):
    """More of the body of a request, no more than `WantBody` has asked for.

    Attributes:
        call: Number of the call.
        content: What comes next of it.
        is_last: Nothing follows.
        failure: Why nothing more of it can be had.
    """

    call: int
    content: bytes
    is_last: bool
    failure: Failure | None = None


class CheckVariables(_Message, frozen=True, tag=41):
    """Check environment variables against what the worker's bundle declares; answered by `VariablesChecked`.

    Attributes:
        changes: What is to be set, by name; None: to be removed.
        question: As in `CheckDocuments`.
    """

    changes: dict[str, str | None]
    question: int = 0


class KnowVariables(_Message, frozen=True, tag=42):
    """The rows of all environment variables, by name; comes before the first action and at each change."""

    rows: dict[str, bytes]


class ExplainCall(_Message, frozen=True, tag=44):
    """Run a query or mutation to tell what it costs; nothing is committed. Else as `RunQuery`. Answered by `CallExplained`."""

    call: int
    now_us: int
    kind: Literal["query", "mutation"]
    name: str
    arguments: bytes
    identity: bytes | None


TransactionOrder = (
    OpenRound
    | RunQuery
    | RunMutation
    | CloseRound
    | Describe
    | EndChain
    | CheckDocuments
    | RewriteDocuments
    | CheckVariables
    | ExplainCall
)
ActionOrder = (
    Describe | RunAction | StopAction | CreditAction | NestedDone | KnowTables | KnowVariables | FeedBody
)
DaemonMessage = TransactionOrder | ActionOrder

# ---------------------------------------------------------------------------------- worker to daemon


class Described(_Message, frozen=True, tag=17):
    """The bundle was loaded (`manifest`: JSON) or could not be (`failure`)."""

    manifest: bytes | None
    failure: Failure | None


class RoundOpened(_Message, frozen=True, tag=18):
    """The round's transaction is open at `ts`.

    Attributes:
        round: Number of the round.
        ts: Commit ts of its snapshot.
        bundle_current: Whether this worker's bundle is the active one in that snapshot; if
            not, the worker has closed the round and it must run elsewhere.
    """

    round: int
    ts: int
    bundle_current: bool


class Usage(_Message, frozen=True):
    """What a call cost; `started_us` is monotonic, by the clock that the daemon has as well, 0: nobody knows."""

    duration_us: int
    documents_read: int = 0
    bytes_read: int = 0
    documents_written: int = 0
    bytes_written: int = 0
    started_us: int = 0


class QueryDone(_Message, frozen=True, tag=19):
    """A query has run.

    Attributes:
        call: Number of the call.
        ts: Snapshot it ran at.
        content: Encoded result; None when it failed.
        bounds: For a result that is a list: u32 little-endian offsets into `content`, the
            start of each element and the end of the last; else None.
        ids: For such a list: `_id` of each element that is a map with one, else None.
        failure: Why it failed; the read set is valid then as well.
        points: Document keys read.
        ranges: Key ranges read.
        identity_read: Whether the function looked at the identity.
        journal: What a later run must be given to keep its page ends.
        usage: Cost.
        logs: Lines the function printed, `[level, text]`.
    """

    call: int
    ts: int
    content: bytes | None
    bounds: bytes | None
    ids: list[str | None] | None
    failure: Failure | None
    points: list[bytes]
    ranges: list[Range]
    identity_read: bool
    journal: bytes | None
    usage: Usage
    logs: list[tuple[str, str]] = []


class MutationDone(_Message, frozen=True, tag=20):
    """A mutation has run and wants to commit, or is already decided.

    Attributes:
        call: Number of the call.
        ts: Snapshot it ran at.
        outcome: Encoded result when it succeeded.
        failure: Why it failed. An application failure still has a proposal when the
            request is remembered: the row that records it.
        proposal: What to commit; None when nothing is to be committed. A member of a chain
            always has one: what it read has to commit before it is answered.
        duplicate: The call was not run: `outcome` or `failure` is what is known of its request.
        usage: Cost.
        logs: Lines the function printed, `[level, text]`.
        first_due_us: When the first of the jobs is due that it schedules; None if it schedules none.
    """

    call: int
    ts: int
    outcome: bytes | None
    failure: Failure | None
    proposal: Proposal | None
    duplicate: bool
    usage: Usage
    logs: list[tuple[str, str]] = []
    first_due_us: int | None = None


class CallExplained(_Message, frozen=True, tag=45):
    """A call was run at `ts` to be explained; if it failed, `explained` is about what it did until then."""

    call: int
    ts: int
    failure: Failure | None
    explained: Explained
    usage: Usage


class WrongBundle(_Message, frozen=True, tag=21):
    """The call met a snapshot in which another bundle is active; it must run elsewhere.

    Attributes:
        call: Number of the call.
        ts: The snapshot; 0 for a query of a round that was not opened for that reason.
    """

    call: int
    ts: int


class DocumentsChecked(_Message, frozen=True, tag=22):
    """Documents were checked.

    Attributes:
        question: The answered one's.
        next: Document key at which to go on, None if nothing is left.
        misfits: Id and problem of each that does not fit.
        looked_at: How many documents there were.
    """

    question: int
    next: bytes | None
    misfits: list[tuple[str, str]]
    looked_at: int = 0


class DocumentsRewritten(_Message, frozen=True, tag=23):
    """Documents were brought to the current shape, once the proposal is committed.

    Attributes:
        question: The answered one's.
        proposal: What to commit, with how far it is; None: there was nothing to do, or another bundle is active.
        rewritten: How many documents it writes.
        left: First ids, and why each stays as it is.
        done: The table is at its end.
        stay: How many documents of it stay as they are, so far.
    """

    question: int
    proposal: Proposal | None
    rewritten: int = 0
    left: list[tuple[str, str]] = []
    done: bool = False
    stay: int = 0


class ActionDone(_Message, frozen=True, tag=24):
    """An action has ended.

    Attributes:
        call: Number of the call.
        content: Encoded result; None when it failed.
        failure: Why it failed.
        usage: Its duration.
        logs: Lines it printed, `[level, text]`.
    """

    call: int
    content: bytes | None
    failure: Failure | None
    usage: Usage
    logs: list[tuple[str, str]] = []


class ActionPiece(_Message, frozen=True, tag=25):
    """A piece of an action's stream, encoded."""

    call: int
    content: bytes


class ActionPrinted(_Message, frozen=True, tag=51):
    """Lines of an action that goes on, `[level, text]`; `ActionDone` has the rest."""

    call: int
    logs: list[tuple[str, str]]


class RunNested(_Message, frozen=True, tag=26):
    """Run a query or mutation for an action; answered by `NestedDone`.

    Attributes:
        call: Number of the action.
        number: Number of the query or mutation within it, never used twice.
        kind: Which of the two it must be.
        name: Function.
        arguments: Encoded map.
    """

    call: int
    number: int
    kind: Literal["query", "mutation"]
    name: str
    arguments: bytes


class AnswerHead(_Message, frozen=True, tag=30):
    """A route answers; `ActionPiece` has the body, and `ActionDone` ends it.

    Attributes:
        call: Number of the call.
        status: As in HTTP.
        headers: In order.
        size: Of the body, None if that is not known.
    """

    call: int
    status: int
    headers: list[tuple[str, str]]
    size: int | None


class WantBody(_Message, frozen=True, tag=31):
    """A route can take so many bytes more of its request's body; nothing is sent before it says so."""

    call: int
    size: int


class ScheduleJob(_Message, frozen=True, tag=27):
    """Schedule a job for an action; answered by `NestedDone` with the job's id.

    Attributes:
        call: Number of the action.
        number: As in `RunNested`.
        function: What is to run.
        kind: What that is.
        arguments: Encoded map.
        due_us: When, µs since 1970.
    """

    call: int
    number: int
    function: str
    kind: Literal["mutation", "action"]
    arguments: bytes
    due_us: int


class CancelJob(_Message, frozen=True, tag=28):
    """Cancel a job for an action; answered by `NestedDone` with whether that was in time."""

    call: int
    number: int
    job: str


Asked = RunNested | ScheduleJob | CancelJob | SignToken | VerifyLogin
"""What an action wants of the daemon."""


class VariablesChecked(_Message, frozen=True, tag=43):
    """Environment variables were checked.

    Attributes:
        question: The answered one's.
        problems: What does not fit, a sentence each.
        rows: What was read of those that the bundle declares, None: not set.
    """

    question: int
    problems: list[str]
    rows: dict[str, bytes | None]


Question = CheckDocuments | RewriteDocuments | CheckVariables
Reply = DocumentsChecked | DocumentsRewritten | VariablesChecked

WorkerMessage = (
    Described
    | RoundOpened
    | QueryDone
    | MutationDone
    | CallExplained
    | WrongBundle
    | DocumentsChecked
    | DocumentsRewritten
    | VariablesChecked
    | ActionDone
    | ActionPiece
    | ActionPrinted
    | AnswerHead
    | WantBody
    | Asked
)
