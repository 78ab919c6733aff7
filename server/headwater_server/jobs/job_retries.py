"""Whether and when a job that has not been decided is tried again.

Pure. What its function did is decided with it; here is what befell the system.
"""

from __future__ import annotations

from dataclasses import dataclass

from headwater_protocol.errors import ERROR_CODES, Retry


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How patient jobs are.

    Attributes:
        deaths_max: So many workers may end during a mutation before it has failed: it may be what ends them.
        first_s: Pause behind the first attempt; twice as long behind each further one.
        longest_s: Longest pause.
    """

    deaths_max: int = 5
    first_s: float = 0.1
    longest_s: float = 30.0

    def pause_s(self, attempts: int) -> float:
        """Return how long to wait behind so many attempts."""
        return min(self.longest_s, self.first_s * 2.0 ** min(attempts - 1, 32))

    def again(self, code: str, deaths: int) -> bool:
        """Tell whether a mutation that ended with this code, undecided, is tried again.

        Args:
            code: What it ended with.
            deaths: How many workers have ended during it.
        """
        if code == "worker_died":
            return deaths < self.deaths_max
        # A storage that has failed ends the daemon; the row of the job tells the next one.
        return code == "outcome_unknown" or ERROR_CODES[code].retry is not Retry.NEVER
