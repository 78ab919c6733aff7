"""Tokens, and the providers whose keys are fetched."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from headwater_config.declarations import MIB, About


@dataclass(frozen=True, kw_only=True)
class SignInSettings:
    """Tokens, and the providers whose keys are fetched."""

    token_limit_bytes: Annotated[
        int,
        About(
            "Largest token that says who a client is",
            why="Raise it for a provider that puts much into its tokens, as all groups of a person.",
            unit="bytes",
            group="Sign-in",
            ge=1024,
            le=MIB,
        ),
    ] = 16 * 1024
    token_leeway_s: Annotated[
        float,
        About(
            "How far the clock of a provider may be from this machine's",
            why="Raise it if tokens are refused as made in the future. A token counts that much longer than it says.",
            unit="s",
            ge=0,
            le=300,
        ),
    ] = 3.0
    token_refusals_logged: Annotated[
        int,
        About(
            "Log lines in a minute that say why a token was refused; 0 logs none",
            why="Anybody may send bad tokens; what is not logged is counted, and told with the next line.",
            ge=0,
            le=100_000,
        ),
    ] = 30
    provider_keys_age_s: Annotated[
        float,
        About(
            "Age at which the keys of a provider are fetched again",
            why="Lower it for a provider whose keys may be taken back at any time.",
            unit="s",
            ge=1,
            le=86_400,
        ),
    ] = 3600.0
    provider_keys_pause_s: Annotated[
        float,
        About(
            "Least time between two fetches of a provider's keys, also when a token names a key that is not known",
            why="Anybody may send such tokens. Lower it for a provider that signs with a new key before it shows it.",
            unit="s",
            ge=1,
            le=3600,
        ),
    ] = 60.0
    provider_keys_kept_s: Annotated[
        float,
        About(
            "Age at which keys of a provider that cannot be reached count no more",
            why="Until then its tokens are verified with what was fetched last; after that nobody can sign in.",
            unit="s",
            ge=60,
            le=30 * 86_400,
        ),
    ] = 86_400.0
    provider_fetch_limit_s: Annotated[
        float,
        About(
            "Time for one answer of a provider",
            why="Raise it for a provider that is far away.",
            unit="s",
            ge=0.1,
            le=60,
        ),
    ] = 5.0
    provider_fetch_limit_bytes: Annotated[
        int,
        About(
            "Largest answer of a provider",
            why="Raise it for one that publishes very many keys.",
            unit="bytes",
            ge=1024,
            le=16 * MIB,
        ),
    ] = 256 * 1024
    provider_waiting_limit: Annotated[
        int,
        About(
            "Tokens that may wait for keys of providers; others are refused and may come again",
            why="Raise it for crowds that come back at once after a restart.",
            ge=1,
            le=1_000_000,
        ),
    ] = 10_000
    provider_private_addresses: Annotated[
        bool,
        About(
            "Whether keys may be fetched from private addresses, and from loopback without TLS",
            why="Set it in development, and for a provider in the same private network. A name that a stranger"
            " controls may then lead the daemon to machines that only it can reach.",
        ),
    ] = False
    token_checks_limit: Annotated[
        int,
        About(
            "Tokens that are verified at a time; others wait",
            why="Raise it if many clients come at once while a provider's keys take long to fetch.",
            unit="tokens",
            ge=1,
            le=100_000,
        ),
    ] = 256
    token_check_limit_s: Annotated[
        float,
        About(
            "Longest time of one verification",
            why="A client whose token cannot be verified in time is told to come back: raise it for a provider that answers slowly.",
            unit="s",
            ge=0.1,
            le=60,
        ),
    ] = 15.0
    session_tokens_limit_per_minute: Annotated[
        int,
        About(
            "Tokens of one connection that are verified in a minute; further ones wait, and what the client sent behind",
            why="A client brings one when it connects and one before each ends. Lower it against floods.",
            unit="tokens",
            ge=1,
            le=100_000,
        ),
    ] = 30
    public_url: Annotated[
        str | None,
        About(
            "Address of this server as others reach it, as https://data.example.com; it names the issuer of the tokens that"
            " are signed for accounts of the bundle",
            why="Without it, localhost and the port. Those who verify such tokens elsewhere find the public keys there.",
        ),
    ] = None
    signed_token_limit_s: Annotated[
        int,
        About(
            "Longest life of a token that is signed for accounts of the bundle",
            why="A key that signs no more is shown for so long.",
            unit="s",
            ge=60,
            le=86_400,
        ),
    ] = 3600
