"""What it costs to know who a token is from: tokens that nobody has seen before.

Ours: the verifier as the daemon has it, one token after another: the form taken apart strictly, provider, claims, signature,
identity. With `--sessions`: sessions of a real daemon that connect over TCP, bring a token and are told that it counts. The
limit of both: PyJWT alone on such tokens with the finished key, checking signature, issuer, audience and times.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from headwater_protocol.codec import decode_server_message, encode_message
from headwater_protocol.frames import FrameDecoder, frame
from headwater_protocol.manifest import ProviderManifest, canonical_json
from headwater_protocol.messages import Authenticate, AuthError, Connect, FatalError, Transition
from headwater_server.identity.key_cache import CacheOptions
from headwater_server.identity.verifier import Clocks, Verifier, VerifierOptions
from headwater_server.observe.metrics import Metrics

from benchmarks import slices
from benchmarks.daemon import free_port, running

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

SESSIONS, SESSIONS_AT_A_TIME = 1_000, 32
ISSUER, AUDIENCE = "https://id.example", "app"
KEYS: dict[str, Callable[[], Any]] = {
    "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "RS256": lambda: rsa.generate_private_key(65537, 2048),
    "EdDSA": ed25519.Ed25519PrivateKey.generate,
}


class Issuer:
    """Signs tokens, each for somebody else.

    Attributes:
        public: The public key.
        provider: As a bundle declares it.
    """

    def __init__(self, algorithm: str) -> None:
        self._algorithm, self._private = algorithm, KEYS[algorithm]()
        self.public = self._private.public_key()
        jwk = jwt.get_algorithm_by_name(algorithm).to_jwk(self.public, as_dict=True)
        jwk.pop("key_ops", None)
        keys = canonical_json({"keys": [{**jwk, "kid": "one"}]})
        self.provider = ProviderManifest("jwt", ISSUER, AUDIENCE, keys, (algorithm,))
        self._numbers = itertools.count()

    def tokens(self, count: int) -> list[str]:
        """Return so many tokens, with the claims that a provider usually gives."""
        now_s = int(time.time())
        return [
            jwt.encode(
                {
                    "iss": ISSUER, "aud": AUDIENCE, "sub": f"user-{number}", "iat": now_s, "nbf": now_s,
                    "exp": now_s + 3600, "jti": f"{number:032x}", "name": f"User {number}",
                    "email": f"user-{number}@example.com", "email_verified": True, "roles": ["member"],
                },
                self._private, self._algorithm, {"kid": "one"},
            )
            for number in itertools.islice(self._numbers, count)
        ]  # fmt: skip


def new_verifier(issuer: Issuer) -> Verifier:
    """Return a verifier with the daemon's own options."""

    async def get(address: str) -> bytes:
        raise AssertionError(f"nothing is fetched, {address} neither")

    options = VerifierOptions(16_384, 3.0, 10_000, 30, CacheOptions(60.0, 3600.0, 86_400.0))
    verifier = Verifier(options, Clocks(time.time, time.monotonic), get, Metrics())
    verifier.use([issuer.provider])
    return verifier


async def rate(issuer: Issuer, seconds: float, verify: Callable[[str], Awaitable[object]]) -> float:
    """Return how many tokens a second are verified; signing them is not counted."""
    done, spent_s = 0, 0.0
    while spent_s < seconds:
        tokens = issuer.tokens(500)
        start = time.perf_counter()
        for token in tokens:
            await verify(token)
        spent_s += time.perf_counter() - start
        done += len(tokens)
    return done / spent_s


def alone_with(issuer: Issuer, algorithm: str) -> Callable[[str], Awaitable[object]]:
    """Return the limit."""

    async def alone(token: str) -> object:
        return jwt.decode(token, issuer.public, [algorithm], audience=AUDIENCE, issuer=ISSUER)

    return alone


def measure(algorithm: str, count: int) -> slices.Paired:
    """Measure both in turns."""
    issuer = Issuer(algorithm)
    verifier = new_verifier(issuer)

    return slices.in_turns(
        lambda seconds: asyncio.run(rate(issuer, seconds, verifier.verify)),
        lambda seconds: asyncio.run(rate(issuer, seconds, alone_with(issuer, algorithm))),
        more_is_better=True,
        slices=count,
    )


async def sign_in(port: int, token: str) -> None:
    """Open a session, bring a token, wait until it counts, leave."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        first = Connect((1,), os.urandom(16), 0, None, "bench")
        writer.write(b"".join(frame(encode_message(message)) for message in (first, Authenticate(0, token))))
        decoder = FrameDecoder(1 << 20)
        while data := await reader.read(1 << 16):
            for message in map(decode_server_message, decoder.feed(data)):
                if isinstance(message, Transition) and message.end.identity == 1:
                    return
                if isinstance(message, AuthError | FatalError):
                    raise RuntimeError(f"not signed in: {message}")
        raise RuntimeError("the daemon ended the connection")
    finally:
        writer.close()


async def sessions_rate(port: int, tokens: list[str]) -> float:
    """Return how many sessions a second are signed in, `SESSIONS_AT_A_TIME` at a time."""
    left = iter(tokens)

    async def one_after_another() -> None:
        for token in left:
            await sign_in(port, token)

    start = time.perf_counter()
    await asyncio.gather(*(one_after_another() for _ in range(SESSIONS_AT_A_TIME)))
    return len(tokens) / (time.perf_counter() - start)


async def measure_sessions(algorithm: str, count: int) -> slices.Paired:
    """Measure a real daemon and PyJWT in turns."""
    issuer = Issuer(algorithm)
    result = slices.Paired([], [], more_is_better=True)
    provider = f"jwt_provider(issuer={ISSUER!r}, audience={AUDIENCE!r}, jwks={issuer.provider.keys!r})"
    with tempfile.TemporaryDirectory(prefix="headwater-bench-") as folder:
        functions = Path(folder) / "functions"
        functions.mkdir()
        (functions / "__init__.py").touch()
        (functions / "auth.py").write_text(f"from headwater import jwt_provider\n{provider}\n")
        port = free_port()
        async with running(functions, "--tcp-port", str(port)):
            for _ in range(count + 1):
                result.ours.append(await sessions_rate(port, issuer.tokens(SESSIONS)))
                result.limit.append(await rate(issuer, slices.SLICE_S, alone_with(issuer, algorithm)))
    del result.ours[0], result.limit[0]
    return result


def main() -> int:
    """Run the benchmark."""
    parser = slices.arguments(__doc__)
    parser.add_argument("--algorithm", choices=sorted(KEYS), default="ES256", help="default ES256")
    parser.add_argument("--sessions", action="store_true", help="sign sessions in at a real daemon")
    chosen = parser.parse_args()
    if chosen.sessions:
        result = asyncio.run(measure_sessions(chosen.algorithm, chosen.slices))
    else:
        result = measure(chosen.algorithm, chosen.slices)
    unit = "sessions/s" if chosen.sessions else "tokens/s"
    report = slices.Report("auth", result.row(unit), {"algorithm": chosen.algorithm})
    report.further["machine"] = slices.machine()
    report.print(as_json=chosen.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
