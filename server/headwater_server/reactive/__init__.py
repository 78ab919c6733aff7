"""Which results are stale, who must see what, and when: the pure reactive core."""
