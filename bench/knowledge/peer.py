"""One peer of the knowledge bench, run by its own environment's Python: `peer.py NAME VECTORS QUESTIONS FOLDER K`.

VECTORS and QUESTIONS are .npy files of unit float32 rows. Prints one line of JSON: seconds to build, bytes on disk and
in memory, the milliseconds and the answers of each question. Imports nothing of Hearth, and Hearth nothing of it.
"""

import json
import resource
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Search = Callable[[Any], Sequence[Any]]
_BATCH = 5000


def chroma(vectors: Any, folder: Path, k: int) -> Search:
    import chromadb  # type: ignore[import-not-found]
    from chromadb.config import Settings  # type: ignore[import-not-found]

    client = chromadb.PersistentClient(str(folder), Settings(anonymized_telemetry=False))
    made = client.create_collection("bench", metadata={"hnsw:space": "cosine"})
    for at in range(0, len(vectors), _BATCH):
        part = vectors[at : at + _BATCH]
        made.add(ids=[str(at + n) for n in range(len(part))], embeddings=part)
    return lambda question: [
        int(each) for each in made.query(query_embeddings=[question], n_results=k, include=[])["ids"][0]
    ]


def usearch(vectors: Any, folder: Path, k: int) -> Search:
    from usearch.index import Index  # type: ignore[import-not-found]

    index = Index(ndim=vectors.shape[1], metric="cos", dtype="f16")
    index.add(np.arange(len(vectors)), vectors)
    index.save(str(folder / "index"))
    return lambda question: index.search(question, k).keys.tolist()  # type: ignore[no-any-return]


def faiss(vectors: Any, folder: Path, k: int) -> Search:
    import faiss as library  # type: ignore[import-not-found]

    index = library.IndexHNSWFlat(vectors.shape[1], 32, library.METRIC_INNER_PRODUCT)
    index.hnsw.efSearch = 64
    index.add(vectors)
    library.write_index(index, str(folder / "index"))
    return lambda question: index.search(question[None], k)[1][0].tolist()  # type: ignore[no-any-return]


PEERS = {"chroma": chroma, "usearch": usearch, "faiss": faiss}


def main(name: str, vectors: str, questions: str, folder: str, k: str) -> None:
    started = time.perf_counter()
    search = PEERS[name](np.load(vectors), Path(folder), int(k))
    built = time.perf_counter() - started
    asked = np.load(questions)
    for question in asked[:10]:
        search(question)
    times, answers = [], []
    for question in asked:
        before = time.perf_counter()
        answers.append([int(each) for each in search(question)])
        times.append((time.perf_counter() - before) * 1000)
    disk = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
    # Not getrusage's maximum, which begins with what the parent had.
    memory = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()
    print(json.dumps({"built": built, "disk": disk, "memory": memory, "ms": times, "answers": answers}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
