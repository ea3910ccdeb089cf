"""Hearth's side of the embed bench, a process of its own: `python -m bench.ours MODEL CACHE`, spoken to as the peer."""

import json
import sys
import time
from pathlib import Path

import numpy as np

from config.model import LocalModel
from server.models.engine import Embed, Vectors
from server.models.engines.encoders.embedder import EmbedEngine

_TOKENS = 256


def main(folder: str, cache: str) -> None:
    spec = LocalModel.model_validate({"engine": "openvino", "source": folder, "task": "embed"}, context={})
    engine = EmbedEngine(spec, Path(folder), Path(cache))
    card = engine.load(lambda text: None)
    print(card.precision, flush=True)
    for line in sys.stdin:
        started = time.perf_counter()
        rows = embedded(engine, json.loads(line))
        print(json.dumps([time.perf_counter() - started, rows]), flush=True)


def embedded(engine: EmbedEngine, texts: list[str]) -> list[list[float]]:
    """One vector a text, which is read as far as the peer reads it."""
    ids = [row[: _TOKENS - 1][1:] if len(row) > _TOKENS else row[1:-1] for row in engine._encoder.ids(texts)]
    engine.submit(0, Embed(tokens=ids))
    vectors = np.zeros((len(texts), 0), np.float32)
    while engine.busy:
        for _, event in engine.step():
            if isinstance(event, Vectors):
                part = np.frombuffer(event.data, "<f4").reshape(len(event.indices), -1)
                vectors = vectors if vectors.shape[1] else np.empty((len(texts), part.shape[1]), np.float32)
                vectors[event.indices] = part
    rows: list[list[float]] = vectors.tolist()
    return rows


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
