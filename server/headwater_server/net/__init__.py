"""Sockets and HTTP: thin shells around the pure sessions."""
