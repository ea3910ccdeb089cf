"""A server with short limits, looked at after each attack."""

from collections.abc import Iterator

import pytest

from tests.live import Live, serving
from tests.making import made

RECIPE = """\
version: 1
server:
  limits:
    body: 256KiB
    connections: 100
    queue: 200
    header_timeout: 700ms
    body_timeout: 700ms
    write_timeout: 1500ms
  hosts: [hearth.example.com]
  cors: ["https://chat.example.com"]
  keep_alive: 200ms
models:
  echo: {engine: echo, context: 100000, tokens_per_second: 20000}
  slow: {engine: echo, context: 100000, tokens_per_second: 20}
"""


@pytest.fixture(scope="session")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("hostile")
    recipe = folder / "hostile.yaml"
    automaton = made("automaton")
    recipe.write_text(f"{RECIPE}  automaton: {{engine: auto, source: {automaton}, context: 2048}}\n", encoding="utf-8")
    with serving(recipe, folder / "data") as live:
        yield live


@pytest.fixture(autouse=True)
def unharmed(target: Live) -> Iterator[None]:
    """After every test the server answers, no worker has died, and nothing went wrong that nobody expected."""
    before = len(target.log.read_text(encoding="utf-8"))
    yield
    with target.client() as client:
        assert client.get("/healthz").status_code == 200
        models = client.get("/health").json()["models"]
    assert {name: (model["state"], model["restarts"]) for name, model in models.items()} == {
        name: ("ready", 0) for name in ("echo", "slow", "automaton")
    }
    assert "Traceback" not in target.log.read_text(encoding="utf-8")[before:]
