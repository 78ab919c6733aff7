"""Routes in the testing kit: asked without sockets, answered as the daemon answers."""

from __future__ import annotations

import pytest
from headwater.testing import Deployment
from support import tested
from support.tested import notes


async def test_a_route_is_asked_as_a_request_asks_it() -> None:
    deployment = Deployment(tested)
    book = deployment.run_mutation(notes.open_notebook, name="ideas")
    answer = await deployment.as_user("ada").fetch("POST", f"/books/{book}/notes?x=1", body="hello")
    assert (answer.status, answer.json()["by"]) == (201, "ada")
    assert answer.headers["content-type"] == "application/json"
    assert [note.text for note in deployment.run_query(notes.list_, book)] == ["hello"]


@pytest.mark.parametrize(
    ("method", "target", "status", "code"),
    [
        ("GET", "/nowhere", 404, "unknown_function"),
        ("POST", "/books/nonsense/notes", 404, "unknown_function"),
        ("POST", "/books/../notes", 400, "invalid_request"),
        ("GET", "/fails/json", 400, "invalid_request"),
        ("GET", "/fails/application", 400, "application_error"),
    ],
)
async def test_what_clients_are_told_is_an_answer(method: str, target: str, status: int, code: str) -> None:
    answer = await Deployment(tested).fetch(method, target)
    assert (answer.status, answer.json()["code"]) == (status, code)
    assert answer.json().get("data") == ({"how": "application"} if code == "application_error" else None)


async def test_a_method_that_is_not_there_is_405_and_a_fault_is_raised() -> None:
    deployment = Deployment(tested)
    answer = await deployment.fetch("POST", "/fails/x")
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")
    with pytest.raises(KeyError):
        await deployment.fetch("GET", "/fails/x")
