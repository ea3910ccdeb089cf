"""Tests of what the wire is made of, without a server."""
