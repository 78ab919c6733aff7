"""Functions that run by themselves: scheduled jobs and crons."""
