"""Filling in the middle, and llama.cpp's own completions: what editors ask for while somebody types."""

from server.api.infill.llamacpp import completion, infill, props
from server.api.infill.mistral import fim_completions

ROUTES = [fim_completions, infill, completion, props]
