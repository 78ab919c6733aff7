from __future__ import annotations

from headwater_server.functions.failures import CallReporter
from headwater_server.observe.call_log import CallEvent, CallLog, CallLogOptions, EventFilter
from headwater_server.worker.messages import Failure, QueryDone, Usage


def make_reporter(*, production: bool, log: CallLog | None = None) -> CallReporter:
    counter = iter(range(100))
    return CallReporter(
        production=production,
        random_bytes=lambda size: bytes([next(counter)] * size),
        log=log or CallLog(CallLogOptions(), lambda: 1),
    )


FAULT = Failure("internal_error", "KeyError: 'salary'", None, "Traceback: secret\n")


def test_application_errors_reach_the_client_whole() -> None:
    body, request_id = make_reporter(production=True).told(
        "mutation", Failure("application_error", "no", b"\xc0")
    )
    assert (body.code, body.message, body.data) == ("application_error", "no", b"\xc0")
    assert not request_id


def test_faults_are_an_id_in_production_and_the_log_has_the_rest() -> None:
    log = CallLog(CallLogOptions(), lambda: 1)
    event = CallEvent("mutation", "a:b", "http", "success")
    body = make_reporter(production=True, log=log).ended(event, FAULT)
    assert body is not None
    assert "salary" not in body.message
    assert "Traceback" not in body.message
    (logged,) = log.kept(EventFilter())
    assert isinstance(logged, CallEvent)
    assert logged.request_id
    assert logged.request_id in body.message
    assert (logged.function, logged.outcome, logged.failure) == ("a:b", "internal_error", FAULT)


def test_faults_show_their_trace_in_development() -> None:
    body, _ = make_reporter(production=False).told("mutation", FAULT)
    assert "salary" in body.message
    assert "Traceback" in body.message


def test_a_query_that_fails_the_same_way_has_the_same_message_so_that_it_is_not_sent_again() -> None:
    reporter = make_reporter(production=True)
    first = reporter.told("query", FAULT)
    assert reporter.told("query", FAULT) == first
    other = Failure("internal_error", "KeyError: 'name'", None, "Traceback\n")
    assert reporter.told("query", other) != first


def test_a_query_without_result_or_failure_is_a_fault() -> None:
    done = QueryDone(1, 1, None, None, None, None, [], [], False, None, Usage(5))
    body = make_reporter(production=False).query_ended("a:b", done, "http")
    assert body is not None
    assert body.code == "internal_error"
