"""The dialect of Convex's client libraries: a pure translation between its JSON messages and our sessions' events."""
