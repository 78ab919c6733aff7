from __future__ import annotations

from headwater import ActionCtx, QueryCtx, action, jwt_provider, query
from headwater.accounts import Accounts, SignInLimits
from headwater.values import encode

accounts = Accounts(
    refresh_grace_s=60, limits=SignInLimits(passwords=100_000, codes=100_000, addresses=100_000)
)

# Somebody who goes by the name of a deployment, with a key of their own.
jwt_provider(
    issuer="https://data.example.com",
    jwks={
        "keys": [
            {
                "kty": "EC",
                "crv": "P-256",
                "kid": "stranger",
                "x": "axfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpY",
                "y": "T-NC4v4af5uO5-tKfA-eFivOM1drMV7Oy7ZAaDe_UfU",
            }
        ]
    },
    algorithms=["ES256"],
)


@query
def whoami(ctx: QueryCtx) -> str | None:
    account = accounts.get(ctx)
    return None if account is None else account.email


@action
async def forge(ctx: ActionCtx, claims: dict[str, str], lifetime_s: int) -> str:
    """Reach past what accounts offer, as code of a bundle could."""
    return await ctx._call.backend.sign_token(encode(claims), lifetime_s)
