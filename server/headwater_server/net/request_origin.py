"""Whose a request over HTTP is: of the address that its connection comes from, or of the client that a trusted proxy names."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from aiohttp import web

    from headwater_server.net.admission import Account, Admission, Arrival
    from headwater_server.net.handler import HttpHandler

_FORWARDED = "X-Forwarded-For"


def arrival_of(request: web.BaseRequest) -> Arrival:
    """Return what the connection of a request counts as."""
    return cast("HttpHandler", request.protocol).arrival


def account_of(request: web.BaseRequest, admission: Admission) -> Account | None:
    """Return the account of whoever makes a request, None if nothing is counted of them."""
    arrival = arrival_of(request)
    if not arrival.forwards:
        return arrival.account
    return admission.account_behind(request.headers.getall(_FORWARDED, ()))


def address_of(request: web.BaseRequest, admission: Admission) -> str:
    """Return the address of whoever makes a request, that of a proxy which does not say; "" if the connection is gone."""
    behind = None
    if arrival_of(request).forwards:
        behind = admission.client_behind(request.headers.getall(_FORWARDED, ()))
    return behind or request.remote or ""
