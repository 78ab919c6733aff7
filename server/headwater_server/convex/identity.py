"""Users as Convex's clients describe them, for the holders of keys who act as somebody.

Pure.
"""

from __future__ import annotations

from typing import Any

_CLAIMS = {
    "subject": "sub",
    "issuer": "iss",
    "givenName": "given_name",
    "familyName": "family_name",
    "preferredUsername": "preferred_username",
    "profileUrl": "profile",
    "pictureUrl": "picture",
    "websiteUrl": "website",
    "emailVerified": "email_verified",
    "phoneNumber": "phone_number",
    "phoneNumberVerified": "phone_number_verified",
    "updatedAt": "updated_at",
}
_DERIVED = frozenset({"tokenIdentifier"})  # from issuer and subject


def claims_of(attributes: dict[str, Any]) -> dict[str, Any]:
    """Return what a token of the user would claim."""
    return {
        _CLAIMS.get(name, name): value
        for name, value in attributes.items()
        if name not in _DERIVED and value is not None
    }
