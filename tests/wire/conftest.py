"""What several wire tests share beside the servers of all tests."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from openai import OpenAI

from tests.e2e.test_crash import children
from tests.live import Live, serving, wait_for
from tests.upstream import KEY, SCRIPTS, Upstream, upstream
from tests.wire.tooled import Tooled, tooled_server


@pytest.fixture(scope="session")
def sdk(generating: Live) -> Iterator[OpenAI]:
    """OpenAI's own client; it tries nothing again, so that a fault is seen."""
    with OpenAI(base_url=f"{generating.url}/v1", api_key="none", max_retries=0, timeout=120) as client:
        yield client


@pytest.fixture(scope="session")
def tooled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tooled]:
    """Assistants with tools."""
    with tooled_server(tmp_path_factory.mktemp("tooled")) as server:
        yield server


@dataclass(frozen=True)
class Forwarding:
    """A server whose models are of other servers, and the scripted one of these. `workers` are its own models' pids."""

    live: Live
    upstream: Upstream
    workers: dict[str, int]


_OWN = ("near", "busy", "full", "mortal", "mortal-too")
"""Its models with workers, in the order of the recipe, in which they are started."""


@pytest.fixture(scope="session")
def forwarding(tmp_path_factory: pytest.TempPathFactory, generating: Live, wire: Live) -> Iterator[Forwarding]:
    """Remote models of a scripted server and of two real Hearths, and models of its own that fall back."""
    folder = tmp_path_factory.mktemp("forwarding")
    recipe = folder / "forwarding.yaml"
    (folder / "handbook").mkdir()
    (folder / "handbook" / "tea.md").write_text("# Tea\n\nThe tea is kept in the blue tin.\n", encoding="utf-8")
    hearth, echoes = f"{generating.url}/v1", f"{wire.url}/v1"
    with upstream() as scripted:
        tasks = {"vectors": "embed", "ragged": "embed"}
        recipe.write_text(
            "version: 1\n"
            "models:\n"
            + "".join(
                f"  s-{name}: {{engine: remote, url: '{scripted.url}', secret: {KEY}, model: '{name}', "
                f"task: {tasks.get(name, 'chat')}}}\n"
                for name in SCRIPTS
            )
            + f"  automaton: {{engine: remote, url: '{hearth}', context: 999}}\n"
            f"  rebel: {{engine: remote, url: '{hearth}'}}\n"
            f"  slow: {{engine: remote, url: '{echoes}'}}\n"
            f"  late: {{engine: remote, url: '{echoes}', model: slow, deadline: 400ms}}\n"
            f"  echo: {{engine: remote, url: '{echoes}'}}\n"
            f"  embed: {{engine: remote, url: '{echoes}', task: embed}}\n"
            f"  prompted: {{engine: remote, url: '{echoes}', model: embed, task: embed,\n"
            "    prompts: {query: 'Find: '}}\n"
            "  away: {engine: remote, url: 'http://127.0.0.1:9/v1'}\n"
            "  near: {engine: echo}\n"
            "  busy: {engine: echo, tokens_per_second: 10, parallel: 1, fallback: {to: near, queue: 3}}\n"
            "  full: {engine: echo, tokens_per_second: 10, parallel: 1, queue: 1, fallback: near}\n"
            "  mortal: {engine: echo, tokens_per_second: 0.2, fallback: near}\n"
            "  mortal-too: {engine: echo, tokens_per_second: 0.2, fallback: near}\n"
            "  gone: {engine: llamacpp, source: 'hf:nobody/nothing/gone.gguf', fallback: away-first}\n"
            "  away-first: {engine: remote, url: 'http://127.0.0.1:9/v1', fallback: near}\n"
            "  over: {engine: remote, url: '" + scripted.url + "', model: '429', fallback: automaton}\n"
            "  breaks: {engine: remote, url: '" + scripted.url + "', model: dropped, fallback: near}\n"
            "  vec-away: {engine: remote, url: 'http://127.0.0.1:9/v1', task: embed, fallback: embed}\n"
            "  rank-away: {engine: remote, url: 'http://127.0.0.1:9/v1', task: rerank, fallback: rank}\n"
            "  rank: {engine: auto, source: 'made:reranker', task: rerank}\n"
            "knowledge:\n"
            f"  handbook: {{embed: embed, sources: [{{files: '{folder}/handbook/*.md'}}]}}\n"
            "assistants:\n"
            "  librarian: {model: s-said, knowledge: [handbook]}\n",
            encoding="utf-8",
        )
        with serving(recipe, folder / "data", until="/healthz") as live, live.client() as client:
            wait_for(lambda: client.get("/readyz").json()["waiting"] == ["models.gone"], "it is not ready", live.log)
            yield Forwarding(live, scripted, dict(zip(_OWN, children(live.process.pid), strict=False)))
