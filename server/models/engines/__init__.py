"""Engines by name; each one's libraries are imported when it is created, in the worker that runs it."""

from pathlib import Path

from config.model import EchoModel, ModelSpec, OpenVINOModel, ReaderModel
from server.models.engine import Engine


def create(spec: ModelSpec, cache: Path) -> Engine:
    """The engine that `spec` declares, not loaded yet. `cache` is a folder it may fill."""
    match spec:
        case EchoModel():
            from server.models.engines.echo import EchoEngine

            return EchoEngine(spec)
        case ReaderModel():
            from server.models.engines.reader import ReaderEngine

            return ReaderEngine(spec, cache)
        case OpenVINOModel():
            from server.models.engines.embedder import EmbedEngine

            return EmbedEngine(spec, cache)
