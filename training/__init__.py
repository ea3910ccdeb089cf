"""Trains the starter's reader; nothing of the server imports this."""
