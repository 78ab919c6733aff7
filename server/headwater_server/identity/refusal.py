"""The one way in which a token is refused."""

from __future__ import annotations


class RefusedTokenError(Exception):
    """A token says nothing about its bearer.

    Attributes:
        reason: Why, for the developer: for the log and for `headwater auth check`. Clients are told only that
            it was refused; what is asked of tokens is not for whoever tries some.
        may_pass_later: Nothing was found wrong with it, it could not be looked at: the provider's keys
            could not be had, or too many tokens wait for them.
    """

    def __init__(self, reason: str, *, may_pass_later: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.may_pass_later = may_pass_later


def shown(value: object, characters_max: int = 100) -> str:
    """Return what somebody else says, so that it can stand in a reason: bounded, on one line, printable."""
    text = ascii(value)
    return text if len(text) <= characters_max else text[:characters_max] + "..."
