"""Who makes a call, as functions see it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from headwater_protocol.errors import RequestError
from msgspec import Struct

if TYPE_CHECKING:
    from headwater.calls import Caller

T = TypeVar("T")


class Identity(Struct, frozen=True, rename="camel"):
    """Who makes a call: what a token says that one of the bundle's providers has signed.

    Standard claims (those of OpenID Connect) have a property each, None where the token does not have it or has
    something of another type. They are what the provider says: whether an email address is the user's own,
    `email_verified` tells.

    Attributes:
        token_identifier: `issuer|subject`: one user, over all providers. Keep this in documents.
        subject: The issuer's own name of the user.
        issuer: Who vouches for it.
        name: For people.
        email: Email address.
        claims: Everything that the token claims of the user, custom claims as well, times of the token left out.
        session: Of an account of the bundle, the session that the token belongs to, "" if somebody acts as it. None for
            users of all other providers, whatever their tokens claim.
    """

    token_identifier: str
    subject: str
    issuer: str = ""
    name: str | None = None
    email: str | None = None
    claims: dict[str, Any] = {}
    session: str | None = None

    @property
    def given_name(self) -> str | None:
        """First name or names."""
        return self._claim("given_name", str)

    @property
    def family_name(self) -> str | None:
        """Last name or names."""
        return self._claim("family_name", str)

    @property
    def nickname(self) -> str | None:
        """What friends say."""
        return self._claim("nickname", str)

    @property
    def preferred_username(self) -> str | None:
        """Name to be shown; neither unique nor stable."""
        return self._claim("preferred_username", str)

    @property
    def profile_url(self) -> str | None:
        """Address of a profile page."""
        return self._claim("profile", str)

    @property
    def picture_url(self) -> str | None:
        """Address of a picture."""
        return self._claim("picture", str)

    @property
    def email_verified(self) -> bool:
        """Whether the provider knows that the email address is the user's."""
        return self._claim("email_verified", bool) is True

    @property
    def gender(self) -> str | None:
        """Gender, in the provider's words."""
        return self._claim("gender", str)

    @property
    def birthday(self) -> str | None:
        """`YYYY-MM-DD`; the year is 0000 or the day left out where it is not told."""
        return self._claim("birthdate", str)

    @property
    def timezone(self) -> str | None:
        """As in `Europe/Paris`."""
        return self._claim("zoneinfo", str)

    @property
    def language(self) -> str | None:
        """As in `en-GB`."""
        return self._claim("locale", str)

    @property
    def phone_number(self) -> str | None:
        """As in `+49 30 901820`, if the provider follows the standard."""
        return self._claim("phone_number", str)

    @property
    def phone_number_verified(self) -> bool:
        """Whether the provider knows that the phone number is the user's."""
        return self._claim("phone_number_verified", bool) is True

    @property
    def address(self) -> dict[str, Any] | None:
        """Postal address: `formatted`, `street_address`, `locality`, `region`, `postal_code`, `country`."""
        return self._claim("address", dict)

    @property
    def updated_at_s(self) -> float | None:
        """When the user's data were last changed, in seconds since 1970."""
        found = self.claims.get("updated_at")
        return float(found) if isinstance(found, int | float) and not isinstance(found, bool) else None

    def _claim(self, name: str, kind: type[T]) -> T | None:
        found = self.claims.get(name)
        return found if isinstance(found, kind) else None


_decode_identity = msgspec.msgpack.Decoder(Identity).decode


class Auth:
    """Who makes the call."""

    __slots__ = ("_call",)

    def __init__(self, call: Caller) -> None:
        self._call = call

    def identity(self) -> Identity | None:
        """Return the caller's identity, None if there is none.

        A query that asks for it is run for each identity by itself; one that does not is
        shared by everybody. Of an account of the bundle whose session has ended there is none, from that commit on; in
        an action, which has no database, until the token ends.
        """
        self._call.identity_read = True
        encoded = self._call.identity
        if encoded is None:
            return None
        identity = _decode_identity(encoded)
        return identity if self._call.goes_on(identity.subject, identity.session) else None

    def require(self) -> Identity:
        """Return the caller's identity.

        Raises:
            RequestError: `unauthenticated`: there is none.
        """
        identity = self.identity()
        if identity is None:
            raise RequestError("sign in to do this", code="unauthenticated")
        return identity
