"""The openai Python SDK, version 1."""

from openai_python_routes import run

run()
