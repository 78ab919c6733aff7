"""`python -m headwater.cli` is the command `headwater`."""

from __future__ import annotations

from headwater.cli.main import main

main()
