"""The programs that people point at Hearth, each in an environment of its own."""
