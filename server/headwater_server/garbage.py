"""How often the daemon looks for cycles of objects that nobody refers to any more."""

from __future__ import annotations

import gc

THRESHOLDS = (10_000, 50, 50)
"""Of `gc.set_threshold`. With Python's own, 1,000 subscribers of one query cost a tenth more CPU for each
update, and mutations as much: measured with `fanout` and `transfers`."""


def spare_collections() -> None:
    """Look less often, and never among what is here to stay.

    A daemon with thousands of sessions holds millions of objects that refer to each other, and makes and
    drops short-lived ones with every update; the latter shall not have the former looked through.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
