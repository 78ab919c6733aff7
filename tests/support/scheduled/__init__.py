"""A bundle with jobs and crons, for the tests of the testing kit."""
