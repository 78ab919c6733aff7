"""Functions that do what no function should, beside two that behave."""
