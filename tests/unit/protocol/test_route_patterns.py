"""Addresses of routes: what can be written, what a path belongs to, and what is refused."""

from __future__ import annotations

import pytest
from headwater_protocol.errors import RequestError
from headwater_protocol.route_patterns import Candidate, RouteTable, parse_pattern, segments_of, twin


def table(*labels: str) -> RouteTable:
    found = []
    for label in labels:
        method, path = label.split()
        found.append(Candidate(method, parse_pattern(path), label))
    return RouteTable(found)


ROUTES = table(
    "GET /",
    "GET /a",
    "GET /a/",
    "POST /a/{x}",
    "GET /a/{x}",
    "GET /a/b",
    "GET /{y}/b",
    "GET /a/{x}/c",
    "GET /a/{rest:rest}",
    "DELETE /a/b",
    "PUT /{all:rest}",
)


@pytest.mark.parametrize(
    ("asked", "route", "parameters"),
    [
        ("GET /", "GET /", {}),
        ("GET /a", "GET /a", {}),
        ("GET /a/", "GET /a/", {}),
        ("GET /a/b", "GET /a/b", {}),
        ("HEAD /a/b", "GET /a/b", {}),
        ("GET /a/x", "GET /a/{x}", {"x": "x"}),
        ("GET /z/b", "GET /{y}/b", {"y": "z"}),
        ("POST /a/b", "POST /a/{x}", {"x": "b"}),
        ("GET /a/1/c", "GET /a/{x}/c", {"x": "1"}),
        ("GET /a/1/d", "GET /a/{rest:rest}", {"rest": "1/d"}),
        ("GET /a/1/c/", "GET /a/{rest:rest}", {"rest": "1/c/"}),
        ("PUT /q/r", "PUT /{all:rest}", {"all": "q/r"}),
        ("PUT /", "PUT /{all:rest}", {"all": ""}),
        ("GET /a/%20%C3%BC", "GET /a/{x}", {"x": " ü"}),
        ("GET /a/1%2F2", "GET /a/{x}", {"x": "1/2"}),
        ("GET /%61/b", "GET /a/b", {}),
        ("GET /q", None, {}),
        ("DELETE /a/q", None, {}),
        ("", None, {}),
    ],
)
def test_the_most_specific_route_of_the_method_is_found(
    asked: str, route: str | None, parameters: dict[str, str]
) -> None:
    method, _, path = asked.partition(" ")
    found = ROUTES.find(method, segments_of(path or "/a"))
    assert (found.route, found.parameters) == (route, parameters)


def test_the_methods_of_a_path_are_those_of_all_routes_that_it_fits() -> None:
    assert ROUTES.find("PATCH", ("a", "b")).methods == {"GET", "HEAD", "POST", "DELETE", "PUT"}
    assert not table("GET /a").find("GET", ("b",)).methods


@pytest.mark.parametrize(
    "path",
    [
        "a",
        "",
        "/a//b",
        "/{}",
        "/{1a}",
        "/{a}{b}",
        "/{a}.json",
        "/x{a}",
        "/{a:rest}/b",
        "/{a:int}",
        "/{a}/{a}",
        "/a b",
        "/ä",
        "/a?b",
        "/a#b",
        "/a%20b",
        "/..",
        "/./a",
        "/{ä}",
        "/" + "a" * 1000,
    ],
)
def test_a_pattern_that_is_none_is_refused(path: str) -> None:
    with pytest.raises(RequestError) as refused:
        parse_pattern(path)
    assert refused.value.code == "invalid_bundle"
    assert path[:100] in refused.value.message


@pytest.mark.parametrize(
    "path",
    [
        "a",
        "/..",
        "/../etc/passwd",
        "/a/./b",
        "/a/%2e%2e/b",
        "/a/..%2fb",
        "/a/x%2f..%2fb",
        "/a/%2E",
        "/a/..%5cb",
        "/a/..\\b",
        "/a/%00",
        "/a/%0d%0a",
        "/a/%7f",
        "/a/%",
        "/a/%2",
        "/a/%zz",
        "/a/%ff",
        "/a/%c3%28",
        "/ä",
        "/%ed%a0%80",
    ],
)
def test_a_path_that_leads_elsewhere_or_is_badly_encoded_is_refused(path: str) -> None:
    with pytest.raises(RequestError) as refused:
        segments_of(path)
    assert refused.value.code == "invalid_request"


def test_dots_that_are_no_steps_are_names() -> None:
    assert segments_of("/a/...%20/.b/c..") == ("a", "... ", ".b", "c..")


@pytest.mark.parametrize(
    ("one", "other", "are_twins"),
    [
        ("GET /a/{x}", "GET /a/{y}", True),
        ("GET /a", "GET /a", True),
        ("GET /{x:rest}", "GET /{y:rest}", True),
        ("GET /a", "POST /a", False),
        ("GET /a/{x}", "GET /a/{x:rest}", False),
        ("GET /a", "GET /a/", False),
        ("GET /{x}/a", "GET /a/{x}", False),
    ],
)
def test_routes_that_take_the_same_requests_are_twins(one: str, other: str, are_twins: bool) -> None:
    first, second = (
        Candidate(label.split()[0], parse_pattern(label.split()[1]), label) for label in (one, other)
    )
    assert twin(second, [first]) == (first if are_twins else None)
