"""Keys to a deployment: compared in constant time, kept as hashes, shown once.

The admin key may do everything; other keys, each with a name and a role, may do what their role says.
"""

from __future__ import annotations

import base64
import hmac
import json
import os
from dataclasses import dataclass
from enum import Enum
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from headwater_protocol.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from aiohttp import web

KEY_BYTES = 32
KEY_LENGTH_MIN = 24
_STRONG_LENGTH_MIN = 32
_DISTINCT_MIN = 12
_EXAMPLE_WORDS = (
    "example",
    "change-me",
    "changeme",
    "change_me",
    "password",
    "secret",
    "your-key",
    "admin-key",
)
_SCHEME, _CONVEX_SCHEME = "Headwater", "Convex"


def new_key(random_bytes: Callable[[int], bytes]) -> str:
    """Return a new key: URL-safe text of 32 random bytes."""
    return "hw-" + base64.urlsafe_b64encode(random_bytes(KEY_BYTES)).rstrip(b"=").decode()


def hash_key(key: str) -> bytes:
    """Return what is stored of a key; keys carry 256 random bits, so a plain hash is enough."""
    # Header bytes that are no text come as surrogates: such a key is wrong, not a fault.
    return blake2b(key.encode(errors="surrogateescape"), digest_size=32, person=b"headwater-key").digest()


def write_key_file(path: Path, key: str) -> None:
    """Write the key durably to a new file that only its owner can read; a file of that name is removed first."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(key + "\n")
    sync_key_file(path)


def sync_key_file(path: Path) -> None:
    """Return when a key file is durable under its name."""
    for part in (path, path.parent):
        descriptor = os.open(part, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def move_key_file(old: Path, new: Path) -> None:
    """Give a durable key file another name, durably; a file of that name is replaced."""
    old.rename(new)
    sync_key_file(new)


def read_key_file(path: Path) -> str:
    """Return the key in a file.

    Raises:
        RequestError: `invalid_request` when it is not text, or too short to be safe.
    """
    try:
        key = path.read_text(encoding="utf-8").strip()
    except UnicodeDecodeError:
        raise RequestError(f"the key file {path} is not UTF-8 text") from None
    if len(key) < KEY_LENGTH_MIN:
        raise RequestError(f"the key in {path} is shorter than {KEY_LENGTH_MIN} characters; use a random one")
    return key


def bearer_key(request: web.Request) -> str | None:
    """Return the key that a request offers in `Authorization: Headwater <key>`, None if it offers none."""
    return offered_key(request)[0]


def offered_key(request: web.Request) -> tuple[str | None, dict[str, Any] | None]:
    """Return the key that a request offers, and what the user is like as whom it is to be made.

    `Authorization: Headwater <key>`, or `Convex <key>`, which may have `:` and JSON of the user in base64 behind it.
    """
    scheme, _, text = request.headers.get("Authorization", "").partition(" ")
    text = text.strip()
    if scheme == _SCHEME:
        return text, None
    if scheme != _CONVEX_SCHEME:
        return None, None
    key, _, encoded = text.rpartition(":")
    try:
        attributes = json.loads(base64.b64decode(encoded, validate=True)) if key else None
    except ValueError:  # a key that has a colon
        return text, None
    return (key, attributes) if isinstance(attributes, dict) else (text, None)


def bearer_token(request: web.BaseRequest) -> str | None:
    """Return the token of a user that a request offers in `Authorization: Bearer <token>`, None if it offers none."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


class Right(Enum):
    """What a key may be needed for."""

    DESCRIBE = "look at what is deployed, and at why tokens are refused"
    BROWSE = "look at documents"
    DEPLOY = "deploy, roll back, and set environment variables"
    READ = "run internal queries, and read the log of calls"
    RUN = "run internal functions of all kinds"
    ACT_AS = "run functions as a user"
    ADMINISTER = "make and revoke keys"


ROLES: dict[str, frozenset[Right]] = {
    "admin": frozenset(Right),
    "deploy": frozenset({Right.DESCRIBE, Right.DEPLOY}),
    "read": frozenset({Right.DESCRIBE, Right.BROWSE, Right.READ}),
}


@dataclass(frozen=True, slots=True)
class AccessKey:
    """A key beside the admin key.

    Attributes:
        name: Whose it is, for people; unique.
        role: One of `ROLES`.
        digest: What is kept of it.
        created_us: When it was made, µs since 1970.
    """

    name: str
    role: str
    digest: bytes
    created_us: int


class AdminKeys:
    """Knows the hashes of the keys that are valid now.

    Args:
        valid_hash: Of the admin key; empty: there is none yet.

    Attributes:
        used: Told of each use of a key that is not the admin key.
        changed: Told when others are valid.
    """

    def __init__(self, valid_hash: bytes) -> None:
        self._valid_hash = valid_hash
        self._others: tuple[AccessKey, ...] = ()
        self.used: Callable[[AccessKey], None] = lambda _: None
        self.changed: Callable[[], None] = lambda: None

    def replace(self, valid_hash: bytes) -> None:
        """Make another key the admin key from now on."""
        self._valid_hash = valid_hash
        self.changed()

    def replace_others(self, others: Sequence[AccessKey]) -> None:
        """Make these the valid ones beside the admin key."""
        self._others = tuple(others)
        self.changed()

    def require(self, key: str | None, right: Right = Right.ADMINISTER) -> str:
        """Return the name of a key if it has a right; the narrowest one unless it is said.

        Raises:
            RequestError: `unauthenticated`: it is no key of this deployment; `forbidden`: its role lacks the right.
        """
        if key is None:
            raise RequestError(
                "this call needs a key of the deployment: Authorization: Headwater <key>",
                code="unauthenticated",
            )
        name, role = self._known(key)
        if right not in ROLES[role]:
            raise RequestError(
                f"the key {name!r} is for the role {role}; this needs one for {_roles_with(right)}",
                code="forbidden",
            )
        return name

    def rights_offered(self, request: web.Request) -> frozenset[Right]:
        """Return what the key of a request may do, nothing if it offers none; a wrong key is refused."""
        key = bearer_key(request)
        return frozenset() if key is None else ROLES[self._known(key)[1]]

    def opened_by(self, digest: bytes) -> tuple[str, frozenset[Right]]:
        """Return name and rights of the key with this hash; raises `unauthenticated`."""
        name, role = self._with_hash(digest)
        return name, ROLES[role]

    def _known(self, key: str) -> tuple[str, str]:
        """Return name and role of a key."""
        return self._with_hash(hash_key(key))

    def _with_hash(self, offered: bytes) -> tuple[str, str]:
        """Return name and role of the key with this hash. It is compared with each there is, whichever it is."""
        is_admin = hmac.compare_digest(offered, self._valid_hash)
        fitting = [other for other in self._others if hmac.compare_digest(offered, other.digest)]
        if is_admin:
            return "admin-key", "admin"
        if not fitting:
            raise RequestError(
                "the key is none of this deployment: give the one in its `admin-key` file, or one of `headwater key create`"
                " that has not been revoked",
                code="unauthenticated",
            )
        self.used(fitting[0])
        return fitting[0].name, fitting[0].role


def require_right(rights: frozenset[Right], right: Right) -> None:
    """Refuse whoever has shown no key, or one without a right.

    Raises:
        RequestError: `unauthenticated`: no key; `forbidden`: its role lacks the right.
    """
    if not rights:
        raise RequestError("this needs a key of the deployment", code="unauthenticated")
    if right not in rights:
        raise RequestError(
            f"this key is for another role; this needs one for {_roles_with(right)}", code="forbidden"
        )


def _roles_with(right: Right) -> str:
    return " or ".join(role for role, rights in ROLES.items() if right in rights)


def why_weak(key: str) -> str | None:
    """Return why a key must not be used where strangers can try keys, None if it may.

    Keys that we make are random; this is about those that people bring.
    """
    if len(key) < _STRONG_LENGTH_MIN:
        return f"it is shorter than {_STRONG_LENGTH_MIN} characters"
    if len(set(key)) < _DISTINCT_MIN:
        return f"it has fewer than {_DISTINCT_MIN} different characters"
    word = next((word for word in _EXAMPLE_WORDS if word in key.lower()), None)
    return None if word is None else f"it looks like one out of an example: {word!r} stands in it"
