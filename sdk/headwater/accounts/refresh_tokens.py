"""Refresh tokens: 16 bytes that all of a session have in common, and 32 that are others each time.

Pure. The next secret follows from the one before and a salt that is stored: whoever comes twice with the same token
in a moment gets the same answer, and nobody can tell the next token from what is stored.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from dataclasses import dataclass, field
from hashlib import sha256

from headwater_protocol.errors import RequestError

_FAMILY_BYTES = 16
_SECRET_BYTES = 32
RANDOM_BYTES = _FAMILY_BYTES + _SECRET_BYTES
SALT_BYTES = 32
_TEXT_CHARACTERS = RANDOM_BYTES * 4 // 3


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """One of them.

    Attributes:
        family: What all of a session have in common.
        secret: What this one has.
    """

    family: bytes = field(repr=False)
    secret: bytes = field(repr=False)

    @classmethod
    def made(cls, random: bytes) -> RefreshToken:
        """Return the first of a session, of `RANDOM_BYTES` unpredictable bytes."""
        return cls(random[:_FAMILY_BYTES], random[_FAMILY_BYTES:RANDOM_BYTES])

    @classmethod
    def read(cls, text: str) -> RefreshToken:
        """Return one that somebody has sent.

        Raises:
            RequestError: `unauthenticated`: it is none.
        """
        try:
            content = base64.b64decode(text[: _TEXT_CHARACTERS + 1], altchars=b"-_", validate=True)
            if len(content) != RANDOM_BYTES:
                raise ValueError
            return cls.made(content)
        except (binascii.Error, ValueError):
            raise RequestError("the refresh token does not count", code="unauthenticated") from None

    def next(self, salt: bytes) -> RefreshToken:
        """Return the one that follows."""
        return RefreshToken(self.family, hmac.digest(self.secret, salt, "sha256"))

    @property
    def text(self) -> str:
        """What the client keeps."""
        return base64.urlsafe_b64encode(self.family + self.secret).decode()

    @property
    def family_hash(self) -> str:
        """By what its session is found."""
        return sha256(self.family).hexdigest()

    @property
    def secret_hash(self) -> str:
        """What is stored of it."""
        return sha256(self.secret).hexdigest()
