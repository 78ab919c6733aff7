"""The tables of accounts. Of secrets they hold hashes alone."""

from __future__ import annotations

from headwater.calls import ACCOUNTS, SESSIONS
from headwater.fields import Id
from headwater.indexes import Index
from headwater.schema import Table


class Account(Table, name=ACCOUNTS):
    """Somebody who can sign in. Its id is the subject of their tokens.

    Attributes:
        email: Their e-mail address; of accounts without mail, the name that they sign in with; None if a provider has
            told none.
        email_verified: Whether they have shown that it is theirs.
        name: For people, if a provider has told it.
    """

    email: str | None
    email_verified: bool
    name: str | None = None


class Login(Table, name="auth_logins"):
    """What leads to an account: an e-mail address, or a user of another provider.

    Attributes:
        kind: `email`, or the issuer of the provider: it and its own name of a user name one person, whatever the
            provider is called here.
        value: The address, or that name.
        account: Whose it is.
        password: Its hash; None where there is none.
    """

    kind: str
    value: str
    account: Id[Account]
    password: str | None = None

    by_value = Index("kind", "value", unique=True)
    by_account = Index("account")


class Session(Table, name=SESSIONS):
    """A sign-in that goes on; it ends with its document, and so does what its tokens say.

    It is not written again until then: queries that read the identity have read it.

    Attributes:
        account: Whose it is.
        ends_ms: When it ends at the latest, ms since 1970.
    """

    account: Id[Account]
    ends_ms: float

    by_account = Index("account")


class Refresh(Table, name="auth_refreshes"):
    """The refresh token of a session: of all that were given out one after another, the last two.

    Attributes:
        session: Whose it is.
        family: Hash of what all of them have in common.
        current: Hash of the one that is to come next.
        previous: Hash of the one before; "" at first.
        salt: With it, the current one follows from the one before.
        rotated_ms: When that was last used.
        idle_ends_ms: When the session ends unless the current one is used.
    """

    session: Id[Session]
    family: str
    current: str
    previous: str
    salt: bytes
    rotated_ms: float
    idle_ends_ms: float

    by_family = Index("family", unique=True)
    by_session = Index("session")
    by_idle_end = Index("idle_ends_ms")


class Code(Table, name="auth_codes"):
    """A one-time code that somebody has asked for.

    Attributes:
        email: Whom it is sent to.
        request: Hash of what the browser was given that asked.
        code: Its hash; None until it is made, and again once it was used too often.
        attempts: How often it was tried.
        ends_ms: When it ends.
    """

    email: str
    request: str
    ends_ms: float
    code: str | None = None
    attempts: int = 0

    by_request = Index("request", unique=True)
    by_email = Index("email")
    by_end = Index("ends_ms")


class Flow(Table, name="auth_flows"):
    """A sign-in with another provider that a browser has begun.

    Attributes:
        secret: Hash of what the browser keeps.
        provider: Its name.
        redirect_uri: Where the provider sends the browser back to.
        ends_ms: When it ends.
    """

    secret: str
    provider: str
    redirect_uri: str
    ends_ms: float

    by_secret = Index("secret", unique=True)
    by_end = Index("ends_ms")


TABLES = (Account, Login, Session, Refresh, Code, Flow)
