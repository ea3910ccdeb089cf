"""The span reader that ships: its graph against plain numpy, where its spans stand, and whose encoder it is for."""

import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from config.model import ReaderModel
from server.models.engine import Passage
from server.models.engines.encoders.encoder import Encoder
from server.models.engines.reader.engine import ReaderEngine
from server.models.engines.reader.spans import WEIGHTS, WINDOW, SpanReader, Window, ranked
from tests.models.engines.driving import FOLDER, asking, citations, finished, text
from tests.models.engines.driving import WEIGHTS as SOURCE
from tests.models.engines.reference import Reference

HOURS = "The library opens at nine on weekdays. It closes at six."
LOANS = "Members may borrow up to twelve books at a time. A book may be kept for four weeks."


@pytest.fixture(scope="module")
def encoder(cache: Path) -> Encoder:
    return Encoder(FOLDER, cache, "f32", None)


@pytest.fixture(scope="module")
def spans(encoder: Encoder) -> SpanReader:
    reader = SpanReader.of(encoder)
    assert reader is not None
    return reader


def test_the_weights_are_small_enough_to_lie_in_the_tree() -> None:
    assert WEIGHTS.stat().st_size < 25e6
    assert (WEIGHTS.parent / "README.md").is_file()


def test_logits_are_those_of_bert_with_a_span_head(spans: SpanReader, tmp_path: Path) -> None:
    own, given = load_file(WEIGHTS), load_file(FOLDER / "model.safetensors")
    for name in [name for name in own if f"{name}_scale" in own]:
        own[name] = own[name].astype(np.float32) * own.pop(f"{name}_scale")
    shutil.copy(FOLDER / "config.json", tmp_path)
    save_file(given | own, tmp_path / "model.safetensors")
    reference = Reference(tmp_path)
    windows = spans.windows("When does the library open?", [HOURS, LOANS])
    for window, logits in zip(windows, spans.logits(windows), strict=True):
        kinds = [int(place >= window.first) for place in range(len(window.ids))]
        states = reference.states(window.ids, kinds)
        expected = states @ own["qa_outputs.weight"].T + own["qa_outputs.bias"]
        assert np.abs(logits - expected).max() < 2e-3


def test_the_best_span_is_the_answer_in_its_passage(spans: SpanReader) -> None:
    passages = [HOURS, LOANS]
    for question, passage, words in (
        ("How many books may members borrow?", 1, "twelve"),
        ("When does the library open?", 0, "nine"),
        ("How long may a book be kept?", 1, "four weeks"),
    ):
        best = spans.read(question, passages)[0]
        assert best.passage == passage
        assert words in passages[passage][best.start : best.end]


def test_spans_come_best_first_and_none_lies_over_another(spans: SpanReader) -> None:
    found = spans.read("How many books may members borrow?", [HOURS, LOANS], 2)
    assert [span.score for span in found] == sorted((span.score for span in found), reverse=True)
    for passage in (0, 1):
        mine = sorted(span for span in found if span.passage == passage)
        assert len(mine) == 2
        assert mine[0].end <= mine[1].start


def test_what_is_not_there_scores_lower_than_what_is(spans: SpanReader) -> None:
    there = spans.read("How many books may members borrow?", [LOANS])[0]
    elsewhere = spans.read("How many books may members borrow?", [HOURS])[0]
    assert there.score > elsewhere.score


def test_a_long_passage_is_read_in_windows_that_overlap(spans: SpanReader) -> None:
    filler = "Nothing of note happened that day. " * 120
    page = f"{filler}The treasure lies under the old oak. {filler}"
    windows = spans.windows("Where does the treasure lie?", [page])
    assert len(windows) > 3
    assert all(len(window.offsets) <= WINDOW for window in windows)
    assert windows[0].offsets[0][0] == 0
    assert windows[-1].offsets[-1][1] == len(page.rstrip())
    for one, other in pairwise(windows):
        assert other.offsets[0][0] < one.offsets[-1][1]
    best = spans.read("Where does the treasure lie?", [page])[0]
    assert "oak" in page[best.start : best.end]


def test_an_empty_passage_has_no_span(spans: SpanReader) -> None:
    assert spans.read("What?", ["", " \n"]) == []
    assert spans.read("What?", []) == []


@pytest.mark.parametrize(
    ("page", "offsets", "words"),
    [
        ("It is unforgettable.", [(0, 2), (3, 5), (8, 13), (13, 19), (19, 20)], "unforgettable"),
        ("在上海流入", [(place, place + 1) for place in range(5)], "海"),
    ],
)
def test_spans_are_whole_words_where_there_are_spaces(page: str, offsets: list[tuple[int, int]], words: str) -> None:
    """The third of five tokens is the likeliest; in Chinese a token is a sign, and its neighbours are other words."""
    logits = np.full((7, 2), -5.0, np.float32)
    logits[3] = 5.0
    best = ranked([page], [Window(0, [0] * 7, 1, offsets)], [logits], 1)[0]
    assert page[best.start : best.end] == words
    assert best.score == pytest.approx(20.0)


# ---- in the engine --------------------------------------------------------------------------------------------------


def test_the_citation_marks_the_words_that_answer(engines: dict[str, ReaderEngine]) -> None:
    [events] = finished(engines["reader"], asking("How many books may members borrow?", [Passage(LOANS, "a.md", 0.5)]))
    [cited] = citations(events)
    assert cited.answer_start is not None
    assert cited.answer_end is not None
    assert cited.quote_start <= cited.answer_start < cited.answer_end <= cited.quote_end
    assert "twelve" in LOANS[cited.answer_start : cited.answer_end]


@pytest.fixture
def stranger(tmp_path: Path) -> Iterator[ReaderEngine]:
    """The reader over an encoder whose embeddings are other ones."""
    folder = tmp_path / "stranger"
    shutil.copytree(FOLDER, folder)
    tensors = load_file(folder / "model.safetensors")
    tensors["embeddings.LayerNorm.bias"] = tensors["embeddings.LayerNorm.bias"] + np.float32(1e-4)
    save_file(tensors, folder / "model.safetensors")
    engine = ReaderEngine(ReaderModel(engine="reader", source=SOURCE), folder, tmp_path / "cache")
    yield engine
    engine.close()


def test_with_another_encoder_it_quotes_what_is_near_and_says_so(stranger: ReaderEngine) -> None:
    card = stranger.load(lambda _: None)
    assert stranger.spans is None
    assert "nearest sentence" in card.description
    [events] = finished(stranger, asking("How many books may members borrow?", [Passage(LOANS, "a.md", 0.5)]))
    assert text(events).startswith("“Members may borrow up to twelve books at a time.")
    [cited] = citations(events)
    assert (cited.answer_start, cited.answer_end) == (None, None)


def test_weights_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    bad = tmp_path / "reader.safetensors"
    bad.write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00nonsense")
    engine = ReaderEngine(ReaderModel(engine="reader", source=SOURCE), FOLDER, tmp_path / "cache", bad)
    with pytest.raises(ValueError, match=r"reader\.safetensors: cannot be read"):
        engine.load(lambda _: None)
