"""Accounts with another provider beside mail: that of tests, whose address comes from the environment."""
