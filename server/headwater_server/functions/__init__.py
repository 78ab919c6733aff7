"""Bundles, calls and the processes that run them."""
