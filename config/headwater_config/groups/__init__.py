"""The settings by group, each group a heading of the reference page."""
