"""The training on made-up pages: rows that hold their answers, a loop that resumes, weights that the engine reads."""

import json
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from tokenizers import Tokenizer

from server.models.engines.reader.questions import Passage
from tests.making.oracle import needs_torch
from tests.models.engines.driving import FOLDER
from training.examples import Examples, Row
from training.pages import pages

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    found = Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
    found.no_truncation()
    found.no_padding()
    return found


@pytest.fixture(scope="module")
def made() -> list[Passage]:
    return pages(5, 40)


def _rows(made: list[Passage], tokenizer: Tokenizer, count: int, negatives: float, longest: int = 300) -> list[Row]:
    stream = Examples(made, tokenizer, 1).rows(longest, negatives)
    return [next(stream) for _ in range(count)]


def _spelled(tokenizer: Tokenizer, ids: list[int]) -> str:
    told: str = tokenizer.decode(ids).replace(" ", "").lower()
    return told


def test_a_row_is_question_and_window_and_marks_the_answer(made: list[Passage], tokenizer: Tokenizer) -> None:
    answers = {
        _spelled(tokenizer, tokenizer.encode(answer.text, add_special_tokens=False).ids)
        for page in made
        for question in page.questions
        for answer in question.answers
    }
    marked = 0
    for row in _rows(made, tokenizer, 200, 0.0):
        assert row.ids[0] == 101
        assert row.ids.count(102) == 2
        assert len(row.ids) == len(row.kinds)
        for start, end, weight in row.spans:
            if (start, end) != (0, 0):
                marked += 1
                assert row.kinds[start] == row.kinds[end] == 1
                assert weight == 1.0
                assert _spelled(tokenizer, row.ids[start : end + 1]) in answers
    assert marked > 150


def test_negatives_are_drawn_as_often_as_asked_and_hold_no_answer(made: list[Passage], tokenizer: Tokenizer) -> None:
    few, many = (sum(row.spans == [(0, 0, 1.0)] for row in _rows(made, tokenizer, 300, share)) for share in (0.0, 0.9))
    assert few < 60
    assert many > 200


def test_a_stream_that_is_restored_goes_on_as_it_would_have(made: list[Passage], tokenizer: Tokenizer) -> None:
    one, other = Examples(made, tokenizer, 1), Examples(made, tokenizer, 2)
    stream = one.rows(300, 0.2)
    for _ in range(50):
        next(stream)
    other.restore(one.state())
    again = other.rows(300, 0.2)
    assert [next(stream) for _ in range(50)] == [next(again) for _ in range(50)]


@needs_torch
def test_the_model_in_training_is_bert(tokenizer: Tokenizer) -> None:
    import torch

    from tests.models.engines.reference import Reference
    from training.loop import padded
    from training.model import Reader

    model = Reader(FOLDER / "model.safetensors").eval()
    seen: list[torch.Tensor] = []
    model.span.register_forward_hook(lambda _module, given, _told: seen.append(given[0]))
    asked = tokenizer.encode("When does it open?", "The library opens at nine.")
    short = Row(asked.ids, asked.type_ids, [])
    long = Row(asked.ids + asked.ids, asked.type_ids + asked.type_ids, [])
    with torch.inference_mode():
        model(*padded([short, long]))
    expected = Reference(FOLDER).states(short.ids, short.kinds)
    ours = seen[0][0, : len(short.ids)].double().numpy()
    cosines = (ours * expected).sum(-1) / ((ours**2).sum(-1) * (expected**2).sum(-1)) ** 0.5
    assert cosines.min() > 0.998  # bfloat16


@needs_torch
def test_the_script_trains_resumes_and_ships_weights_that_the_engine_reads(tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    for name, seed, count in (("train", 1, 20), ("dev", 2, 1)):
        lines = [msgspec.json.encode(page) for page in pages(seed, count)]
        (data / f"{name}.jsonl").write_bytes(b"\n".join(lines))
    command = [sys.executable, "-m", "training", "--data", str(data), "--out", str(out), "--pages", "10"]
    first = _run(*command, "--examples", "40")
    assert "going on" not in first
    second = _run(*command, "--examples", "80")
    assert "going on from" in second
    from server.models.engines.reader.spans import _metadata

    told = _metadata(out / "reader.safetensors")
    assert told["trained"]["examples"] >= 80
    assert set(told["calibration"]) == {"threshold", "weights"}
    assert json.dumps(told["held_out"])
    assert (out / "reader.safetensors").stat().st_size < 25e6


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
