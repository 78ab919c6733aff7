"""Run the functions of a bundle in tests: over a database in memory, checked as the daemon checks them.

    from headwater.testing import Deployment
    from myapp import functions
    from myapp.functions import messages

    def test_what_is_sent_is_listed():
        deployment = Deployment(functions)
        deployment.run_mutation(messages.send, author="ada", body="hi")
        assert [message.body for message in deployment.run_query(messages.list_)] == ["hi"]

Needs `pip install "headwater[server]"`: the database is the daemon's own.
"""

from __future__ import annotations

from headwater.testing.calls import Caller, PendingMutation, Watch
from headwater.testing.deployment import Deployment
from headwater.testing.fetching import Fetched

__all__ = ["Caller", "Deployment", "Fetched", "PendingMutation", "Watch"]
