"""Mutations of a client whose link is cut at random take effect once, as the user's who called them, and its values
are those of the server.

The client changes its user at random; tokens are refused, and taken back. Sessions that send calls before the verdict
on their user's token, or after a reconnect as the next user's, fail.
"""

from __future__ import annotations

import pytest
from headwater_protocol.client_session import ClientSession
from headwater_protocol.errors import HeadwaterError
from support.cut_link import Run

SEEDS = range(150)


@pytest.mark.parametrize("block", range(10))
def test_mutations_take_effect_once_and_values_equal_the_model(block: int) -> None:
    for seed in SEEDS[block::10]:
        run = Run(seed, ClientSession(b"s" * 16, "test"))
        for _ in range(250):
            run.step()
        for _ in range(2_000):
            run.step(quiet=True)
            if run.client.in_flight == 0 and run.client.settled and run.client.last_ts == run.model.ts:
                break
        assert set(run.resolved) == run.asked, f"seed {seed}"
        assert run.acted == run.actions, f"seed {seed}"
        assert len(run.model.effects) == len(set(run.model.effects)), f"seed {seed}"
        committed = {
            request for request, result in run.resolved.items() if not isinstance(result, HeadwaterError)
        }
        unsure = {
            request
            for request, result in run.resolved.items()
            if isinstance(result, HeadwaterError) and result.code == "outcome_unknown"
        }
        effects = {request for _, request in run.model.effects}
        assert committed <= effects <= committed | unsure, f"seed {seed}"
        for _ in range(200):
            run.step(quiet=True)
        assert set(run.values) == set(run.names), f"seed {seed}: a query without a value"
        run.check_values(run.client.last_ts)
