from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from headwater_server.functions.failures import ErrorReporter
from headwater_server.worker.messages import Failure

if TYPE_CHECKING:
    import pytest


def make_reporter(*, production: bool) -> ErrorReporter:
    counter = iter(range(100))
    return ErrorReporter(production=production, random_bytes=lambda size: bytes([next(counter)] * size))


FAULT = Failure("internal_error", "KeyError: 'salary'", None, "Traceback: secret\n")


def test_application_errors_reach_the_client_whole(caplog: pytest.LogCaptureFixture) -> None:
    body = make_reporter(production=True).body("mutation", "a:b", Failure("application_error", "no", b"\xc0"))
    assert (body.code, body.message, body.data) == ("application_error", "no", b"\xc0")
    assert not caplog.records


def test_faults_are_an_id_in_production_and_the_log_has_the_rest(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "headwater.functions"):
        body = make_reporter(production=True).body("mutation", "a:b", FAULT)
    assert "salary" not in body.message
    assert "Traceback" not in body.message
    fields = caplog.records[0].__dict__["fields"]
    assert fields["request_id"] in body.message
    assert (fields["function"], fields["error"], fields["trace"]) == ("a:b", FAULT.message, FAULT.trace)


def test_faults_show_their_trace_in_development() -> None:
    body = make_reporter(production=False).body("mutation", "a:b", FAULT)
    assert "salary" in body.message
    assert "Traceback" in body.message


def test_a_query_that_fails_the_same_way_has_the_same_message_so_that_it_is_not_sent_again() -> None:
    reporter = make_reporter(production=True)
    first = reporter.body("query", "a:b", FAULT)
    assert reporter.body("query", "a:b", FAULT) == first
    other = Failure("internal_error", "KeyError: 'name'", None, "Traceback\n")
    assert reporter.body("query", "a:b", other) != first
