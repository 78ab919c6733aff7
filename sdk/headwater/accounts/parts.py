"""What the accounts of a bundle bring into it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headwater.accounts.functions import AccountFunctions
from headwater.accounts.http import AccountRoutes
from headwater.accounts.tables import TABLES
from headwater.providers import OWN
from headwater.rate_limiter import RateLimit
from headwater.refusals import invalid_bundle

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from headwater_protocol.manifest import ProviderManifest

    from headwater.accounts.accounts import Accounts
    from headwater.context import RegisteredFunction
    from headwater.crons import DeclaredCron
    from headwater.routes import RouteFunction
    from headwater.schema import TableMeta


@dataclass(frozen=True, slots=True)
class AccountParts:
    """All of it.

    Attributes:
        tables: Tables.
        functions: Internal functions by name.
        routes: Routes by name.
        crons: What runs again and again.
        providers: Whose tokens count: the deployment's, and those of whom people sign in with.
    """

    tables: Sequence[TableMeta]
    functions: Mapping[str, RegisteredFunction]
    routes: Mapping[str, RouteFunction[Any]]
    crons: Sequence[DeclaredCron]
    providers: Sequence[ProviderManifest]


def parts_of(found: Collection[Accounts], declared: Collection[RegisteredFunction]) -> AccountParts:
    """Return what the accounts of a bundle bring into it.

    Args:
        found: The accounts that its modules make.
        declared: The functions that they declare.

    Raises:
        RequestError: `invalid_bundle`: there are two of them, or what sends codes is no function of the bundle.
    """
    if len(found) > 1:
        raise invalid_bundle("two Accounts(...) are made; a bundle has one, which other modules import")
    (accounts,) = found
    if accounts.send is not None and accounts.send not in declared:
        raise invalid_bundle(f"Accounts: send is an action of the same bundle, got {accounts.send!r}")
    functions = AccountFunctions(accounts)
    named = functions.named()
    for name, item in named.items():
        item.rename(name)
    return AccountParts(
        (*TABLES, RateLimit),
        named,
        AccountRoutes(accounts, functions).named(),
        functions.crons(),
        (OWN, *(provider.manifest for provider in accounts.providers)),
    )
