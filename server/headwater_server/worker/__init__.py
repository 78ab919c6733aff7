"""The child process that runs user functions."""
