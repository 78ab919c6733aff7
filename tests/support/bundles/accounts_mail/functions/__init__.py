"""Accounts whose codes go to a mailbox that is a table."""
