"""Which protocol versions there are, and how two sides agree on one.

Pure. A version changes only when an old receiver would misunderstand a message; elements
added behind the known ones, and values of an enumeration that are only sent to peers that
asked for them, need none. The fields of `Connect` are the same in every version.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from headwater_protocol.errors import ProtocolError

if TYPE_CHECKING:
    from collections.abc import Sequence

HISTORY = {1: "First version."}
PROTOCOL_VERSION = max(HISTORY)
SUPPORTED_VERSIONS: tuple[int, ...] = tuple(sorted(HISTORY))


def negotiate(theirs: Sequence[int], ours: Sequence[int] = SUPPORTED_VERSIONS) -> int:
    """Return the highest version that both sides speak.

    Raises:
        ProtocolError: `unsupported_version`, naming what each side speaks.
    """
    common = set(theirs).intersection(ours)
    if not common:
        raise ProtocolError(
            f"no protocol version in common: the client speaks {_listed(theirs)}, the server {_listed(ours)}",
            code="unsupported_version",
        )
    return max(common)


def _listed(versions: Sequence[int]) -> str:
    shown = ", ".join(str(version) for version in list(versions)[:8])
    return shown or "none"
