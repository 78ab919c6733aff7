"""The daemon's certificate: read and looked at as a whole, served, and replaced while it runs.

A pair of files that cannot be served is refused with what is wrong with which of them: at the start that is the end of
it, later the pair before stays. The library that reads it is imported where there is one: it takes megabytes.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headwater_protocol.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes, PublicKeyTypes

logger = logging.getLogger("headwater.tls")

_SOON_S = 14 * 86_400
_FILE_BYTES_MAX = 1 << 20


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """Where certificate and key are.

    Attributes:
        certificate: In PEM, those of authorities in between behind it.
        key: Its private key, in PEM and not encrypted.
    """

    certificate: Path
    key: Path

    def marks(self) -> tuple[tuple[int, ...], ...]:
        """Return what changes with the files; the same as long as neither was written or replaced."""
        return tuple(_mark(path) for path in (self.certificate, self.key))


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate that can be served.

    Attributes:
        context: Serves it.
        begins_s: From when on it counts, seconds since 1970.
        ends_s: Until when.
    """

    context: ssl.SSLContext
    begins_s: float
    ends_s: float


def load_pair(files: CertificateFiles) -> Pair:
    """Read a certificate and its key.

    Raises:
        RequestError: They cannot be served; names the file and what is wrong with it.
    """
    certificate = _certificate(files.certificate)
    key = _key(files.key)
    if _bytes_of(key.public_key()) != _bytes_of(certificate.public_key()):
        raise _refused(files.key, f"is not the key of the certificate in {files.certificate}")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(files.certificate, files.key)
    except (ssl.SSLError, OSError) as error:
        raise _refused(files.certificate, f"cannot be served: {error}") from None
    return Pair(
        context,
        certificate.not_valid_before_utc.timestamp(),
        certificate.not_valid_after_utc.timestamp(),
    )


class ServedCertificate:
    """What new connections are served with: always the newest pair that could be loaded.

    Args:
        files: Looked at now and then.
        interval_s: How often.
        wall_s: Wall clock, seconds since 1970.
        later: Calls something after so many seconds.

    Raises:
        RequestError: The pair cannot be served.

    Attributes:
        context: For listening.
    """

    def __init__(
        self,
        files: CertificateFiles,
        interval_s: float,
        wall_s: Callable[[], float],
        later: Callable[[float, Callable[[], None]], asyncio.TimerHandle],
    ) -> None:
        self._files = files
        self._interval_s = interval_s
        self._wall_s = wall_s
        self._later = later
        self._marks = files.marks()
        self._pair = load_pair(files)
        self._warn_of_time()
        self.context = self._pair.context
        # A key of another kind would be served beside the one before: so each pair has a context of its own.
        self.context.sni_callback = self._choose
        self._timer = later(interval_s, self._look)

    def ends(self) -> float:
        """Return when the served certificate ends, seconds since 1970."""
        return self._pair.ends_s

    def close(self) -> None:
        """Look no more."""
        self._timer.cancel()

    def _choose(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = self._pair.context

    def _look(self) -> None:
        self._timer = self._later(self._interval_s, self._look)
        marks = self._files.marks()
        if marks == self._marks:
            return
        self._marks = marks
        try:
            self._pair = load_pair(self._files)
        except RequestError as error:
            logger.error("certificate_not_replaced", extra={"fields": {"error": error.message}})
            return
        logger.info("certificate_replaced", extra={"fields": {"file": str(self._files.certificate)}})
        self._warn_of_time()

    def _warn_of_time(self) -> None:
        now_s, pair = self._wall_s(), self._pair
        problem = None
        if now_s > pair.ends_s:
            problem = "it has run out: clients refuse it"
        elif now_s < pair.begins_s:
            problem = "it does not count yet: clients refuse it, or the machine's clock is wrong"
        elif pair.ends_s - now_s < _SOON_S:
            problem = f"it ends in {(pair.ends_s - now_s) / 86_400:.1f} days"
        if problem is not None:
            fields = {"file": str(self._files.certificate), "problem": problem}
            logger.warning("certificate_time", extra={"fields": fields})


def served_certificate(
    certificate: Path | None, key: Path | None, interval_s: float, wall_s: Callable[[], float]
) -> ServedCertificate | None:
    """Return what the settings say is served, None without a certificate.

    Raises:
        RequestError: It cannot be.
    """
    if certificate is None:
        if key is not None:
            raise RequestError("TLS: tls_key_file is set and tls_certificate_file is not")
        return None
    files = CertificateFiles(certificate, key or certificate)
    return ServedCertificate(files, interval_s, wall_s, asyncio.get_running_loop().call_later)


def _certificate(path: Path) -> x509.Certificate:
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificates(_read(path))[0]
    except ValueError:
        raise _refused(path, "holds no certificate in PEM (-----BEGIN CERTIFICATE-----)") from None


def _key(path: Path) -> PrivateKeyTypes:
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    content = _read(path)
    try:
        return load_pem_private_key(content, None)
    except TypeError:
        raise _refused(
            path, "holds an encrypted key; the daemon has nobody to ask for its password"
        ) from None
    except ValueError:
        raise _refused(path, "holds no private key in PEM (-----BEGIN PRIVATE KEY-----)") from None


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_FILE_BYTES_MAX)
    except OSError as error:
        raise _refused(path, f"cannot be read: {error.strerror}") from None


def _refused(path: Path, problem: str) -> RequestError:
    return RequestError(f"TLS: {path} {problem}")


def _bytes_of(key: PublicKeyTypes) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _mark(path: Path) -> tuple[int, ...]:
    try:
        found = path.stat()
    except OSError:
        return ()
    return (found.st_mtime_ns, found.st_size, found.st_ino)
