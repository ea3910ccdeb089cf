"""Tests of the engines, in process: they are synchronous and need no server."""
