"""Tests of what broken and hostile clients send: after each of them the server answers the others as before."""
