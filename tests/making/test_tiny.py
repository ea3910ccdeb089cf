"""The tiny model: its tasks, and what of them it has learned, through engines and after rounding its weights."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from config.model import LocalModel
from server.models.engine import Engine
from tests.making import made
from tests.making.oracle import needs_torch
from tests.making.tiny_task import NUMBERS, TASKS, accuracy, example, examples, lesson

PAGED = [
    ("safetensors", "f32", "float"),
    ("safetensors", "f32", "int8"),
    ("gguf", "q8_0", "int8"),
    ("gguf", "q4_0", "int8"),
]

LEAST = 0.95
"""Of all questions and of those of each task."""


def test_the_same_seed_asks_the_same_and_another_one_something_else() -> None:
    assert list(examples(30, 5)) == list(examples(30, 5)) != list(examples(30, 6))
    assert [each.task for each in examples(8, 5)] == [*TASKS, *TASKS]


def test_every_question_has_the_answer_that_follows_from_it() -> None:
    random = np.random.default_rng(3)
    for _ in range(50):
        copied = example(random, "copy")
        assert copied.question == f"copy {copied.answer}"
        counted = example(random, "continue")
        numbers = [NUMBERS.index(word) for word in [*counted.question.split()[1:], *counted.answer.split()]]
        assert [(number + 1) % len(NUMBERS) for number in numbers[:-1]] == numbers[1:]
        asked = example(random, "answer")
        told, _, key = asked.question.removeprefix("answer ").removesuffix("?").partition(". ")
        assert dict(pair.split(" ") for pair in told.split(", "))[key] == asked.answer.removeprefix(f"{key} ")
        grounded = example(random, "ground")
        assert grounded.question == f"answer {grounded.answer.split(' ')[0]}?"
        assert f" {grounded.answer}" in grounded.system


def test_a_lesson_learns_the_answer_and_every_value_that_is_told_again() -> None:
    random = np.random.default_rng(3)
    again = 0
    for task in [*TASKS] * 20:
        pieces = lesson(random, task)
        assert pieces[-1].learned and pieces[-1].text.endswith("<|im_end|>")
        assert pieces[-2].text.endswith("<|im_start|>assistant\n")
        for key, value in pairwise(pieces[:-1]):
            if value.learned:
                again += 1
                assert f"{key.text}{value.text}" in pieces[0].text
    assert again > 20


def _paged(form: str, quant: str, weights: str) -> Engine:
    from server.models.engines.paged import PagedEngine

    source = made("tiny", format=form, quant=quant)
    keys = {"engine": "openvino", "source": str(source), "weights": weights, "precision": "f32", "context": 256}
    spec = LocalModel.model_validate(keys, context={})
    engine = PagedEngine(spec, source)
    engine.load(lambda _: None)
    return engine


@pytest.fixture
def reference() -> Iterator[Engine]:
    from server.models.engines.transformers.engine import TransformersEngine

    folder = Path(made("tiny", format="safetensors"))
    keys = {"engine": "transformers", "source": str(folder), "precision": "f32"}
    engine = TransformersEngine(LocalModel.model_validate(keys, context={}), folder)
    engine.load(lambda _: None)
    yield engine
    engine.close()


@needs_torch
def test_it_has_between_one_and_four_million_weights() -> None:
    from safetensors.numpy import load_file

    tensors = load_file(made("tiny", format="safetensors") / "model.safetensors")
    assert 1_000_000 <= sum(each.size for each in tensors.values()) <= 4_000_000


@needs_torch
@pytest.mark.parametrize(("form", "quant", "weights"), PAGED, ids=["float", "int8", "q8_0", "q4_0"])
def test_it_answers_fresh_questions_through_the_paged_engine(form: str, quant: str, weights: str) -> None:
    engine = _paged(form, quant, weights)
    right = accuracy(engine)
    assert min(right.values()) >= LEAST, right
    engine.close()


@needs_torch
def test_it_answers_fresh_questions_through_transformers(reference: Engine) -> None:
    right = accuracy(reference)
    assert min(right.values()) >= LEAST, right
