"""Reads passages for the words that answer a question: the trained span reader on the OpenVINO runtime. Workers only.

A cross-encoder as in "BERT" (arXiv 1810.04805, 4.2-4.3): question and passage in one row, two logits a token, and the
first token standing for "the answer is not here".
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from server.models.engines.encoders.encoder import Encoder, sum_of
from server.models.engines.encoders.graph import build_spans

WEIGHTS = Path(__file__).parent / "weights" / "reader.safetensors"
"""What ships with Hearth: layers and span head, int8; the embeddings are those of the encoder it was trained on."""

LONGEST_QUESTION = 40
LONGEST_ANSWER = 30
WINDOW, STRIDE = 150, 100
"""Tokens of a passage that are read at once, and how far the next window is from the one before."""
_CANDIDATES = 3
_APART = 1e4

Numbers = NDArray[np.float32]


class Span(NamedTuple):
    """Characters `start`:`end` of passage number `passage`.

    `score` is the span's logit above that of "the answer is not here": above 0 it is likelier than not. Comparable
    between passages and questions.
    """

    passage: int
    start: int
    end: int
    score: float


class Window(NamedTuple):
    """One row to be read: its ids, where its passage's tokens begin, and the characters these stand for."""

    passage: int
    ids: list[int]
    first: int
    offsets: list[tuple[int, int]]


class SpanReader:
    """One thread uses it, that of its encoder."""

    @classmethod
    def of(cls, encoder: Encoder, trained: Path = WEIGHTS) -> "SpanReader | None":
        """None where `trained` was trained on the embeddings of another encoder.

        Raises ValueError naming the file where `trained` cannot be read.
        """
        metadata = _metadata(trained)
        return cls(encoder, trained, metadata) if metadata.get("encoder") == encoder.weights_sum else None

    def __init__(self, encoder: Encoder, trained: Path, metadata: dict[str, Any]) -> None:
        self._encoder = encoder
        self.metadata = metadata
        """What the training tells of the weights, by name; README.md beside them says what each means."""
        self._request = encoder.compiled(
            f"spans {sum_of(trained)} {encoder.weights_sum} {encoder.shape}",
            lambda: build_spans(encoder.weights, trained, encoder.shape),
        )

    def read(self, question: str, passages: Sequence[str], most: int = _CANDIDATES) -> list[Span]:
        """Up to `most` spans of each passage that do not overlap, best first; empty only where there is no word.

        All passages are one batch. Nothing is refused here: a span that answers nothing has a low score.
        """
        windows = self.windows(question, passages)
        return ranked(passages, windows, self.logits(windows) if windows else [], most)

    def windows(self, question: str, passages: Sequence[str]) -> list[Window]:
        """The rows of `passages`, of WINDOW tokens at most; a longer passage gives several that overlap."""
        asked = self._encoder.bare([question])[0][:LONGEST_QUESTION]
        before = self._encoder.second(asked)
        found: list[Window] = []
        for place, (ids, offsets) in enumerate(self._encoder.pieces(passages)):
            for low in _starts(len(ids)):
                part = slice(low, low + WINDOW)
                found.append(Window(place, self._encoder.paired(asked, ids[part]), before, offsets[part]))
        return found

    def logits(self, windows: Sequence[Window]) -> list[Numbers]:
        """[tokens, 2] of each window: does the answer start here, does it end here."""
        longest = max(len(window.ids) for window in windows)
        ids = np.zeros((len(windows), longest), np.int64)
        mask, kinds = np.zeros_like(ids), np.zeros_like(ids)
        for place, window in enumerate(windows):
            size = len(window.ids)
            ids[place, :size], mask[place, :size], kinds[place, window.first : size] = window.ids, 1, 1
        self._request.infer({"input_ids": ids, "attention_mask": mask, "token_type_ids": kinds})
        told = self._request.get_tensor("spans").data
        # The tensor is overwritten by the next call.
        return [np.array(row[: len(window.ids)], np.float32) for row, window in zip(told, windows, strict=True)]


def ranked(
    passages: Sequence[str], windows: Sequence[Window], logits: Sequence[Numbers], most: int = _CANDIDATES
) -> list[Span]:
    """The best spans of all windows, whole words, best first; of one passage at most `most`, none over another."""
    found = [
        Span(window.passage, *_whole_words(passages[window.passage], *place), score)
        for window, scores in zip(windows, logits, strict=True)
        for place, score in _spans(window, scores, most)
    ]
    kept: list[Span] = []
    for span in sorted(found, key=lambda span: -span.score):
        beside = [other for other in kept if other.passage == span.passage]
        if len(beside) < most and all(span.end <= other.start or span.start >= other.end for other in beside):
            kept.append(span)
    return kept


def _starts(tokens: int) -> Iterator[int]:
    """Where windows begin; the last reaches the end, and none is inside another."""
    at = 0
    while tokens:
        yield at
        if at + WINDOW >= tokens:
            return
        at += STRIDE


def _spans(window: Window, scores: Numbers, most: int) -> Iterator[tuple[tuple[int, int], float]]:
    """Characters and score of the best spans of one window, of which none overlaps another."""
    count = len(window.offsets)
    begin, end = scores[window.first : window.first + count, 0], scores[window.first : window.first + count, 1]
    reach = min(LONGEST_ANSWER, count)
    pairs = np.full((reach, count), -_APART, np.float32)
    for length in range(reach):
        pairs[length, : count - length] = begin[: count - length] + end[length:]
    nowhere = float(scores[0].sum())
    for _ in range(most):
        length, first = divmod(int(pairs.argmax()), count)
        best = float(pairs[length, first])
        if best <= -_APART / 2:
            return
        last = first + length
        yield (window.offsets[first][0], window.offsets[last][1]), best - nowhere
        for other in range(reach):
            pairs[other, max(0, first - other) : last + 1] = -_APART


def _whole_words(text: str, start: int, end: int) -> tuple[int, int]:
    """Tokens are pieces of words; nobody wants to read half of one."""
    while start > 0 and text[start].isalnum() and _latin(text[start - 1]) and _latin(text[start]):
        start -= 1
    while end < len(text) and _latin(text[end - 1]) and _latin(text[end]):
        end += 1
    return start, end


def _latin(letter: str) -> bool:
    """Letters and digits of scripts that put spaces between words: Chinese and Japanese put none."""
    return letter.isalnum() and ord(letter) < 0x2E80


def _metadata(trained: Path) -> dict[str, Any]:
    try:
        with safe_open(trained, framework="numpy") as opened:
            return {key: json.loads(value) for key, value in (opened.metadata() or {}).items() if key != "format"}
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"{trained}: cannot be read: {error}") from error
