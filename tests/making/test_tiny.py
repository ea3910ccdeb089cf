"""The tiny model: its tasks, and what of them it has learned, through engines and after rounding its weights."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from config.model import LocalModel
from server.models.engine import Engine
from tests.making import made
from tests.making.oracle import needs_torch
from tests.making.tiny_task import NUMBERS, TASKS, accuracy, example, examples

PAGED = [
    ("safetensors", "f32", "float"),
    ("safetensors", "f32", "int8"),
    ("gguf", "q8_0", "int8"),
    ("gguf", "q4_0", "int8"),
]

LEARNED = ("copy", "continue")
"""Not `answer`: see tests.making.tiny."""


def test_the_same_seed_asks_the_same_and_another_one_something_else() -> None:
    assert list(examples(30, 5)) == list(examples(30, 5)) != list(examples(30, 6))
    assert [each.task for each in examples(6, 5)] == [*TASKS, *TASKS]


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


def _paged(form: str, quant: str, weights: str) -> Engine:
    from server.models.engines.paged import PagedEngine

    source = made("tiny", format=form, quant=quant)
    spec = LocalModel(engine="openvino", source=str(source), weights=weights, precision="f32", context=256)
    engine = PagedEngine(spec, source)
    engine.load(lambda _: None)
    return engine


@pytest.fixture
def reference() -> Iterator[Engine]:
    from server.models.engines.transformers import TransformersEngine

    folder = Path(made("tiny", format="safetensors"))
    engine = TransformersEngine(LocalModel(engine="transformers", source=str(folder), precision="f32"), folder)
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
    assert min(right[task] for task in LEARNED) >= 0.9, right
    engine.close()


@needs_torch
def test_it_answers_fresh_questions_through_transformers(reference: Engine) -> None:
    right = accuracy(reference)
    assert min(right[task] for task in LEARNED) >= 0.9, right
