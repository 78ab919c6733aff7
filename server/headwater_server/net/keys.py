"""The deployment's admin key: compared in constant time, kept as a hash, shown in one file once."""

from __future__ import annotations

import base64
import hmac
import os
from hashlib import blake2b
from typing import TYPE_CHECKING

from headwater_protocol.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from aiohttp import web

KEY_BYTES = 32
KEY_LENGTH_MIN = 24
_SCHEME = "Headwater "


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
    header = request.headers.get("Authorization", "")
    return header.removeprefix(_SCHEME).strip() if header.startswith(_SCHEME) else None


def bearer_token(request: web.Request) -> str | None:
    """Return the token of a user that a request offers in `Authorization: Bearer <token>`, None if it offers none."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


class AdminKeys:
    """Knows the hash of the key that is valid now."""

    def __init__(self, valid_hash: bytes) -> None:
        self._valid_hash = valid_hash

    def replace(self, valid_hash: bytes) -> None:
        """Make another key the valid one from now on."""
        self._valid_hash = valid_hash

    def require(self, key: str | None) -> None:
        """Raise `unauthenticated` unless `key` is the valid one."""
        if key is None:
            raise RequestError(
                "this call needs the deployment's key: Authorization: Headwater <key>", code="unauthenticated"
            )
        if not hmac.compare_digest(hash_key(key), self._valid_hash):
            raise RequestError("the key is not the one of this deployment", code="unauthenticated")

    def offered_and_right(self, request: web.Request) -> bool:
        """Tell whether the request offers the key; a wrong key is refused, none is fine."""
        key = bearer_key(request)
        if key is None:
            return False
        self.require(key)
        return True
