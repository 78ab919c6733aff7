"""What it costs to know who a token is from: tokens that nobody has seen before, one after another.

Ours: the verifier as the daemon has it: the form taken apart strictly, provider, claims, signature, identity. The
limit: PyJWT on the same tokens with the finished key, checking signature, issuer, audience and times.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import time
from typing import TYPE_CHECKING, Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from headwater_protocol.manifest import ProviderManifest, canonical_json
from headwater_server.identity.key_cache import CacheOptions
from headwater_server.identity.verifier import Clocks, Verifier, VerifierOptions
from headwater_server.observe.metrics import Metrics

from benchmarks import slices

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

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


def measure(algorithm: str, count: int) -> slices.Paired:
    """Measure both in turns."""
    issuer = Issuer(algorithm)
    verifier = new_verifier(issuer)

    async def alone(token: str) -> object:
        return jwt.decode(token, issuer.public, [algorithm], audience=AUDIENCE, issuer=ISSUER)

    return slices.in_turns(
        lambda seconds: asyncio.run(rate(issuer, seconds, verifier.verify)),
        lambda seconds: asyncio.run(rate(issuer, seconds, alone)),
        more_is_better=True,
        slices=count,
    )


def main() -> int:
    """Run the benchmark."""
    parser = slices.arguments(__doc__)
    parser.add_argument("--algorithm", choices=sorted(KEYS), default="ES256", help="default ES256")
    chosen = parser.parse_args()
    result = measure(chosen.algorithm, chosen.slices)
    report = slices.Report("auth", result.row("tokens/s"), {"algorithm": chosen.algorithm})
    report.further["machine"] = slices.machine()
    report.print(as_json=chosen.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
