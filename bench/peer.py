"""The peer of the embed bench, run by its own environment's Python: `peer.py MODEL_FOLDER`.

A line of JSON texts in, a line of JSON (seconds and vectors) out; imports nothing of Hearth, and Hearth nothing of it.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np


def main(folder: str) -> None:
    from sentence_transformers import SentenceTransformer  # type: ignore[import-not-found]
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer  # type: ignore[import-not-found]

    transformer = Transformer(folder, max_seq_length=256)
    pooling = Pooling(json.loads((Path(folder) / "config.json").read_text())["hidden_size"])
    model = SentenceTransformer(modules=[transformer, pooling, Normalize()], device="cpu")
    print("ready", flush=True)
    for line in sys.stdin:
        started = time.perf_counter()
        vectors = model.encode(json.loads(line), batch_size=32, show_progress_bar=False)
        seconds = time.perf_counter() - started
        print(json.dumps([seconds, np.asarray(vectors, np.float32).tolist()]), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
