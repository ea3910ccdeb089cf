"""The openai Python SDK, version 2."""

from openai_python_routes import run

run()
