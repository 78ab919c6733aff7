"""How long functions run, as far as is known: what the pool and the reactive core plan with.

Pure.
"""

from __future__ import annotations

from collections import OrderedDict

_NAME_CHARACTERS_MAX = 512


class RunCosts:
    """Moving averages by function name; remembers a bounded number of names of bounded length.

    Args:
        weight: Of the newest run.
        first_ms: What a function is taken to cost before it first ran.
        names_max: So many are remembered, those that ran last.
    """

    def __init__(self, weight: float, first_ms: float, names_max: int) -> None:
        self._weight = weight
        self._first_ms = first_ms
        self._names_max = names_max
        self._by_name: OrderedDict[str, float] = OrderedDict()

    def estimate_ms(self, name: str) -> float:
        """Return what a run of this function probably takes."""
        return self._by_name.get(name, self._first_ms)

    def ran(self, name: str, duration_ms: float) -> None:
        """Learn from a run."""
        if len(name) <= _NAME_CHARACTERS_MAX:  # a longer one comes from a client, hardly from a bundle
            self._by_name[name] = self.learnt(self._by_name.pop(name, duration_ms), duration_ms)
            if len(self._by_name) > self._names_max:
                self._by_name.popitem(last=False)

    def learnt(self, average_ms: float, duration_ms: float) -> float:
        """Return an average after one more run."""
        return average_ms + self._weight * (duration_ms - average_ms)
