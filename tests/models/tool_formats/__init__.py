"""How tool calls are read and forced."""
