"""Sign-in of one's own: see `Accounts`."""

from __future__ import annotations

from headwater.accounts.accounts import Accounts, OneTimeCode, SignInLimits
from headwater.accounts.oauth import OidcSignIn
from headwater.accounts.tables import Account, Session

__all__ = ["Account", "Accounts", "OidcSignIn", "OneTimeCode", "Session", "SignInLimits"]
