"""What goes before texts that are embedded: by the folder, by the recipe, and for nobody who did not ask."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from config.knowledge import CollectionSpec
from config.model import LocalModel
from server.knowledge import Collection, Document
from server.knowledge.counting import counter
from server.models.engine import Card, Embed, Engine, Tokenize
from server.models.engines.encoders.embedder import EmbedEngine
from server.models.header import WeightsError
from server.models.identity import identity
from server.models.made.encoder_folder import write_encoder
from server.models.prompts import FILE, Prompts, Side
from tests.knowledge.hashing import HashedWords, HashEmbedder
from tests.models.engines.driving import finished, vectors

_GIVEN = {"query": "search for: ", "document": "text: "}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_encoder(tmp_path / "model", "bert")


def _spec(folder: Path, prompts: dict[str, str] | None = None) -> LocalModel:
    told = {"engine": "openvino", "source": str(folder), "task": "embed", "precision": "f32", "prompts": prompts}
    return LocalModel.model_validate(told, context={})


def _say(folder: Path, **told: object) -> None:
    (folder / FILE).write_text(json.dumps(told), encoding="utf-8")


def _loaded(folder: Path, tmp_path: Path, prompts: dict[str, str] | None = None) -> tuple[Engine, Card]:
    engine = EmbedEngine(_spec(folder, prompts), folder, tmp_path / "cache")
    return engine, engine.load(lambda text: None)


def _vector(engine: Engine, text: str, side: Side | None = None) -> NDArray[np.float32]:
    [events] = finished(engine, Embed(texts=[text], side=side))
    return vectors(events)[0]


@pytest.mark.parametrize("by_recipe", [True, False], ids=["recipe", "folder"])
def test_each_side_has_its_words_before_it(by_recipe: bool, folder: Path, tmp_path: Path) -> None:
    if by_recipe:
        _say(folder, prompts={"query": "not these: ", "document": "nor these: "}, default_prompt_name="query")
    else:
        _say(folder, prompts={"query": _GIVEN["query"], "passage": _GIVEN["document"]}, default_prompt_name=None)
    engine, card = _loaded(folder, tmp_path, _GIVEN if by_recipe else None)
    assert card.prompts == _GIVEN
    plain = _vector(engine, "one text")
    for side, before in (("query", "search for: "), ("document", "text: ")):
        vector = _vector(engine, "one text", "query" if side == "query" else "document")
        assert vector @ _vector(engine, f"{before}one text") == pytest.approx(1, abs=1e-5)
        assert vector @ plain < 0.999
    ids = engine.tokenize(Tokenize("one text", add_special=False)).ids
    [events] = finished(engine, Embed(tokens=[ids], side="query"))
    assert vectors(events)[0] @ _vector(engine, "one text", "query") == pytest.approx(1, abs=1e-5)
    engine.close()


def test_the_prompt_that_authors_use_unless_said_goes_before_plain_texts(folder: Path, tmp_path: Path) -> None:
    _say(folder, prompts={"query": "search for: ", "any": "think of: "}, default_prompt_name="any")
    engine, _ = _loaded(folder, tmp_path)
    other, _ = _loaded(folder, tmp_path, {})
    assert _vector(engine, "one text") @ _vector(other, "think of: one text") == pytest.approx(1, abs=1e-5)
    assert _vector(engine, "one text", "document") @ _vector(other, "one text") == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("told", "said"),
    [({"prompts": ["query"]}, "should be texts by their names"), ({"default_prompt_name": "x"}, "no prompt of that")],
)
def test_prompts_that_cannot_be_read_are_refused_with_the_file(told: dict[str, Any], said: str, folder: Path) -> None:
    _say(folder, **told)
    with pytest.raises(WeightsError, match=rf"{FILE}: .*{said}"):
        Prompts.of(_spec(folder), folder)


def test_other_words_before_documents_are_other_vectors(folder: Path) -> None:
    assert identity(folder) == identity(folder, "")
    assert identity(folder, "text: ") not in (identity(folder), identity(folder, "passage: "))


def test_a_chunk_leaves_room_for_what_goes_before_it(folder: Path, tmp_path: Path) -> None:
    engine, card = _loaded(folder, tmp_path, _GIVEN)
    bare, full = counter(Card("embed", "", card.context, tokenizer=card.tokenizer)), counter(card)
    text = "one " * full.room
    assert full.room < bare.room and full.count([text]) == [full.room]
    for side in ("query", "document"):
        assert engine.submit(1, Embed(texts=[text], side=side)).prompt_tokens <= card.context
        engine.cancel(1)


@pytest.mark.anyio
async def test_a_collection_says_what_is_looked_for_and_what_is_looked_through(tmp_path: Path) -> None:
    heard: list[tuple[str, Side]] = []

    class Listening(HashEmbedder):
        async def embed(self, inputs: Any, side: Side = "document") -> HashedWords:
            heard.extend((text, side) for text in inputs)
            return await super().embed(inputs, side)

    spec = CollectionSpec(embed="hash")
    async with Collection("notes", spec, Listening(), tmp_path / "knowledge") as notes:
        await notes.upsert([Document(id="n", uri="n", filename="n.md", text="The tea is in the blue tin.")])
        heard_before = len(heard)
        assert [hit.document_id for hit in (await notes.search("Where is the tea?", k=1)).hits] == ["n"]
    assert {side for _, side in heard[:heard_before]} == {"document"}
    assert heard[heard_before:] == [("Where is the tea?", "query")]
