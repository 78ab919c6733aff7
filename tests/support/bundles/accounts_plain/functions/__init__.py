"""Accounts with names and passwords alone."""
