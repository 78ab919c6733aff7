"""The SDK's client as trials use it that take its daemon away again and again."""

from __future__ import annotations

import random
import time

from headwater.client.aio import FRAME_LIMIT_BYTES, IN_FLIGHT_MAX, Client
from headwater.client.transport import parse_address


class Eager(random.Random):
    """Chance for a client: real for its session id, always the shortest pause for its reconnects."""

    def random(self) -> float:
        return -0.96


class EagerClient(Client):
    """A client that connects in the background, for as long as it takes, with hardly a pause."""

    def __init__(self, url: str, chance: random.Random) -> None:
        super().__init__(
            parse_address(url),
            Eager(chance.getrandbits(64)),
            wall_s=time.time,
            connect_timeout_s=None,
            in_flight_max=IN_FLIGHT_MAX,
            frame_limit_bytes=FRAME_LIMIT_BYTES,
        )
