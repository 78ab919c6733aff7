"""The database without a network: log, store, indexes, transactions, committer, recovery."""
