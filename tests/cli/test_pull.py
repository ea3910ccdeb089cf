"""`hearth pull` and `hearth models` as a user runs them, against a local hub."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.test_commands import hearth
from tests.hub import Hub, Repository, of_folder, serving_hub
from tests.live import serving, wait_for
from tests.making import made

RECIPE = """\
version: 1
models:
  talk: {engine: auto, source: "hf:tests/talk", download: DOWNLOAD, context: 512}
  file: {engine: auto, source: "hf:tests/file@v1/talk.gguf"}
  echo: {engine: echo}
"""


@pytest.fixture
def hub() -> Iterator[Hub]:
    talk = of_folder(made("automaton", format="safetensors"))
    file = Repository({"talk.gguf": made("automaton").read_bytes(), "other.gguf": b"x"}, licence=None)
    with serving_hub(talk=talk, file=file) as running:
        yield running


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    file = tmp_path / "talk.yaml"
    file.write_text(RECIPE.replace("DOWNLOAD", "false"), encoding="utf-8")
    return file


def only(words: str) -> str:
    """Without the line breaks and alignment of a terminal."""
    return " ".join(words.split())


def test_pull_fetches_what_a_recipe_names_and_then_needs_no_hub(hub: Hub, recipe: Path) -> None:
    done = hearth("pull", str(recipe), **hub.environment)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    commit = hub.repositories["tests/talk"].commit
    assert "licence apache-2.0" in lines[0]
    assert "4.1 MB" in lines[0]
    assert "no licence said" in done.stdout
    assert f"sums ok, {recipe.parent / 'data/models/tests/talk' / commit}" in done.stdout
    assert "talk.gguf" in lines[-1]
    hub.asked.clear()
    again = hearth("pull", str(recipe), **hub.environment)
    assert again.returncode == 0
    assert again.stdout.count(": on disk, ") == 2
    assert hub.asked == []


def test_pull_of_one_model_and_of_a_source(hub: Hub, recipe: Path) -> None:
    assert hearth("pull", str(recipe), "--model", "file", **hub.environment).returncode == 0
    assert not any("tests/talk" in line for line in hub.asked)
    other = hearth("pull", "hf:tests/file/other.gguf", str(recipe), **hub.environment)
    assert other.returncode == 0, other.stderr
    assert (recipe.parent / "data/models/tests/file" / hub.repositories["tests/file"].commit / "other.gguf").exists()
    wrong = hearth("pull", str(recipe), "--model", "fiel", **hub.environment)
    assert wrong.returncode == 1
    assert "did you mean file?" in wrong.stderr
    nonsense = hearth("pull", "hf:nonsense", str(recipe), **hub.environment)
    assert nonsense.returncode == 1
    assert "hf:OWNER/NAME" in nonsense.stderr


def test_a_fault_is_one_sentence_and_the_other_models_still_come(hub: Hub, recipe: Path) -> None:
    del hub.repositories["tests/talk"]
    done = hearth("pull", str(recipe), **hub.environment)
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert "hf:tests/talk: " in done.stderr
    assert "knows no tests/talk" in done.stderr
    assert "hf:tests/file@v1/talk.gguf: sums ok" in done.stdout


def test_verify_finds_a_broken_byte_and_the_next_pull_mends_it(hub: Hub, recipe: Path) -> None:
    hearth("pull", str(recipe), **hub.environment)
    weights = recipe.parent / "data/models/tests/talk" / hub.repositories["tests/talk"].commit / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-5] ^= 1
    weights.write_bytes(content)
    listed = hearth("models", str(recipe), **hub.environment)
    assert "written since: hearth pull --verify" in only(listed.stdout)
    done = hearth("pull", str(recipe), "--verify", **hub.environment)
    assert done.returncode == 1
    assert "model.safetensors is broken" in done.stderr
    assert "hf:tests/file@v1/talk.gguf: sums ok" in done.stdout
    assert hearth("pull", str(recipe), **hub.environment).returncode == 0
    mended = hearth("pull", str(recipe), "--verify", **hub.environment)
    assert mended.returncode == 0, mended.stderr
    assert mended.stdout.count("sums ok") == 2


def test_a_branch_that_moved_is_fetched_when_asked_to_update(hub: Hub, recipe: Path) -> None:
    hearth("pull", str(recipe), "-m", "talk", **hub.environment)
    old = hub.repositories["tests/talk"].commit
    current = hearth("pull", str(recipe), "-m", "talk", "--update", **hub.environment)
    assert "on disk and current" in current.stdout
    hub.repositories["tests/talk"].files["generation_config.json"] = b"{}"
    new = hub.repositories["tests/talk"].commit
    assert old[:12] in hearth("pull", str(recipe), "-m", "talk", **hub.environment).stdout
    assert new[:12] in hearth("pull", str(recipe), "-m", "talk", "--update", **hub.environment).stdout
    listed = hearth("models", str(recipe), **hub.environment)
    assert f"No model names tests/talk at {old[:12]}" in listed.stdout


def test_models_lists_what_is_on_disk_without_a_server(hub: Hub, recipe: Path) -> None:
    before = hearth("models", str(recipe), HEARTH__SERVER__LISTEN="127.0.0.1:9")
    assert before.returncode == 0, before.stderr
    assert "not fetched" in before.stdout
    assert "not running" in before.stdout
    hearth("pull", str(recipe), "-m", "file", **hub.environment)
    after = only(hearth("models", str(recipe), HEARTH__SERVER__LISTEN="127.0.0.1:9").stdout)
    revision = hub.repositories["tests/file"].commit[:12]
    assert f"file auto chat hf:tests/file@v1/talk.gguf 4.0 MB, revision {revision}, sums ok not running" in after
    assert "talk auto chat hf:tests/talk not fetched not running" in after


def test_a_server_fetches_with_leave_as_soon_as_the_hub_answers_says_so_first_and_lists_the_model(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tmp_path / "talk.yaml"
    told = RECIPE.replace("DOWNLOAD", "true").splitlines(keepends=True)
    recipe.write_text("".join(line for line in told if "file:" not in line), encoding="utf-8")
    for name, value in hub.environment.items():
        monkeypatch.setenv(name, value)
    asked = {"model": "talk", "messages": [{"role": "user", "content": "Hello"}]}
    hub.refuses = 503
    with serving(recipe, tmp_path / "data", until="/healthz") as live, live.client() as client:
        wait_for(lambda: client.get("/health").json()["models"]["talk"]["error"] is not None, "no error", live.log)
        early = client.post("/v1/chat/completions", json=asked)
        hub.refuses = None
        wait_for(lambda: client.get("/readyz").status_code == 200, "it is not ready", live.log)
        log = live.log.read_text(encoding="utf-8")
        listed = hearth("models", str(recipe), HEARTH__SERVER__LISTEN=live.url.removeprefix("http://"))
        answer = client.post("/v1/chat/completions", json=asked).json()
    assert early.status_code == 503
    assert "answered with status 503; what has arrived is kept" in early.json()["error"]["message"]
    assert answer["choices"][0]["message"]["content"]
    fetching, downloading = log.index("fetching hf:tests/talk: "), log.index("downloading ")
    assert fetching < downloading
    assert "licence apache-2.0" in log
    row = next(line for line in listed.stdout.splitlines() if line.startswith("talk"))
    assert "sums ok" in row
    assert "ready, " in row


def test_a_server_without_leave_says_what_to_do(hub: Hub, recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in hub.environment.items():
        monkeypatch.setenv(name, value)
    recipe.write_text(RECIPE.replace("DOWNLOAD", "false").replace("  file:", "  other:"), encoding="utf-8")
    with serving(recipe, recipe.parent / "data", until="/healthz") as live, live.client() as client:
        state = client.get("/health").json()["models"]["talk"]
        while state["error"] is None:
            state = client.get("/health").json()["models"]["talk"]
    assert "`hearth pull`, or set download: true" in state["error"]
    assert hub.asked == []
