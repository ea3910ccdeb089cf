"""Documents that nobody asks for, and models that nobody uses, make room."""
