from __future__ import annotations

from itertools import pairwise

import pytest
from headwater_protocol.backoff import backoff_s
from headwater_protocol.heartbeat import Beat, Heartbeat


def test_backoff_doubles_to_its_limit_and_is_spread() -> None:
    longest = [backoff_s(attempt, 1.0) for attempt in range(10)]
    assert longest[:3] == [0.1, 0.2, 0.4]
    assert longest[-1] == 16.0
    assert backoff_s(3, 0.0) == pytest.approx(0.4)
    assert backoff_s(10**9, 0.5) == 12.0


def test_a_quiet_side_speaks_in_every_interval() -> None:
    heartbeat = Heartbeat(4.0)
    spoken = []
    for quarter in range(40):
        heartbeat.heard = True
        if heartbeat.tick(float(quarter)) is Beat.PING:
            heartbeat.spoke = True
            spoken.append(quarter)
    gaps = [b - a for a, b in pairwise(spoken)]
    assert max(gaps) <= 4
    assert len(spoken) < 20


def test_a_silent_peer_is_given_up_after_three_intervals() -> None:
    heartbeat = Heartbeat(4.0)
    beats = []
    for second in range(20):
        heartbeat.spoke = True
        if second == 5:
            heartbeat.heard = True
        beats.append(heartbeat.tick(1000.0 + second))
    assert beats.index(Beat.LOST) == 5 + 12


def test_who_speaks_and_hears_is_left_alone() -> None:
    heartbeat = Heartbeat(4.0)
    for second in range(100):
        heartbeat.spoke = heartbeat.heard = True
        assert heartbeat.tick(float(second)) is Beat.NOTHING
