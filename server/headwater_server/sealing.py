"""Seals secret environment variables with a key that is kept outside the data directory.

AES-256-GCM; the name of the variable is bound in, so that nobody can put one secret in the place of another. A part of
the key's hash stands before, which tells a wrong key from damage. The library is imported with the first secret: it
takes megabytes.
"""

from __future__ import annotations

import base64
import os
from hashlib import blake2b
from typing import TYPE_CHECKING

from headwater_protocol.errors import InternalError, RequestError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_PREFIX = "hw-seal-"
_KEY_BYTES = 32
_ID_BYTES = 8
_NONCE_BYTES = 12
_SETTING = "`environment_key_file`"


class SealKey:
    """The key in its file, which is read when it is first needed and made when something is first sealed.

    Args:
        file: Where it is; not within the data directory.
        data: The data directory.
    """

    def __init__(self, file: Path, data: Path) -> None:
        self.file = file
        self._data = data
        self._key: bytes | None = None  # once it was read

    def seal(self, name: str, text: str, random_bytes: Callable[[int], bytes]) -> bytes:
        """Return a value sealed; makes the key if there is none.

        Raises:
            RequestError: The key cannot be had, or be made.
        """
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        try:
            key = self._have()
        except FileNotFoundError:
            key = self._make(random_bytes)
        nonce = random_bytes(_NONCE_BYTES)
        return _id(key) + nonce + AESGCM(key).encrypt(nonce, text.encode(), name.encode())

    def unseal(self, name: str, sealed: bytes) -> str:
        """Return what was sealed.

        Raises:
            InternalError: There is no key, it is another one, or the value is damaged. Says which file is meant.
        """
        try:
            key = self._have()
        except FileNotFoundError:
            raise InternalError(
                f"the secret {name} cannot be opened: there is no key file {self.file}. Put the one back that it was sealed"
                f" with, name another file in {_SETTING}, or set the secret again"
            ) from None
        except RequestError as error:
            raise InternalError(f"the secret {name} cannot be opened: {error.message}") from None
        if sealed[:_ID_BYTES] != _id(key):
            raise InternalError(
                f"the secret {name} was sealed with another key than the one in {self.file}. Put that one back, or set the"
                " secret again"
            )
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        content = sealed[_ID_BYTES:]
        try:
            opened = AESGCM(key).decrypt(content[:_NONCE_BYTES], content[_NONCE_BYTES:], name.encode())
        except (InvalidTag, ValueError):
            raise InternalError(f"the secret {name} is damaged; set it again") from None
        return opened.decode()

    def _have(self) -> bytes:
        if self._key is None:
            self._require_outside()
            try:
                text = self.file.read_text(encoding="ascii").strip()
            except FileNotFoundError:
                raise
            except (OSError, UnicodeDecodeError) as error:
                reason = getattr(error, "strerror", None) or "it is not text"
                raise RequestError(
                    f"the key file {self.file} cannot be read: {reason}; see {_SETTING}"
                ) from None
            self._key = self._parsed(text)
        return self._key

    def _parsed(self, text: str) -> bytes:
        try:
            key = base64.urlsafe_b64decode(text.removeprefix(_PREFIX) + "=")
        except ValueError:
            key = b""
        if not text.startswith(_PREFIX) or len(key) != _KEY_BYTES:
            raise RequestError(f"{self.file} holds no key that secrets are sealed with; see {_SETTING}")
        return key

    def _make(self, random_bytes: Callable[[int], bytes]) -> bytes:
        key = random_bytes(_KEY_BYTES)
        text = _PREFIX + base64.urlsafe_b64encode(key).rstrip(b"=").decode() + "\n"
        try:
            descriptor = os.open(self.file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            folder = os.open(self.file.parent, os.O_RDONLY)
            try:
                os.fsync(folder)  # what is sealed with it is durable next
            finally:
                os.close(folder)
        except OSError as error:
            raise RequestError(
                f"a secret needs a key, and its file {self.file} cannot be made: {error.strerror}; name one that can be in"
                f" {_SETTING}"
            ) from None
        self._key = key
        return key

    def _require_outside(self) -> None:
        if self.file.absolute().is_relative_to(self._data.absolute()):
            raise RequestError(
                f"{self.file} lies in the data directory, where whoever has the sealed secrets would have the key as well;"
                f" name another file in {_SETTING}"
            )


def _id(key: bytes) -> bytes:
    return blake2b(key, digest_size=_ID_BYTES, person=b"headwater-seal").digest()
