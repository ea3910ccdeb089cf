"""Hearth's tests: real processes, real sockets, real clients."""
