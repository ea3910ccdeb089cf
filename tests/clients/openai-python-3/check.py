"""The openai Python SDK, version 3."""

from openai_python_routes import run

run()
