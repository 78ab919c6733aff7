"""The contract between clients, daemon and workers: pure, no IO, no clock."""
