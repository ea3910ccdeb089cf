"""Weights from the Hugging Face hub, by the real huggingface_hub against a local server that speaks its protocol."""

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from config.model import Source
from server.models import kept
from server.models.hub import Access, HubAway, HubError, found, located
from tests.hub import TOKEN, Hub, Repository, of_folder, serving_hub
from tests.making import made

SHARDED = Source("hf:tests/sharded")


@pytest.fixture
def hub() -> Iterator[Hub]:
    folder = of_folder(made("automaton", format="safetensors", quant="bf16", shards=2))
    folder.files |= {"pytorch_model.bin": b"\x80pickle" * 9999, "consolidated.safetensors": b"0" * 20_000}
    file = made("automaton")
    gguf = Repository({"q4/model-f32.gguf": file.read_bytes(), "model-f16.gguf": b"x" * 20_000, "README.md": b"hello"})
    with serving_hub(sharded=folder, gguf=gguf) as running:
        yield running


def fetch(source: Source, data: Path, hub: Hub, *, token: str | None = None) -> tuple[Path, list[str]]:
    lines: list[str] = []
    access = Access(hub.url, token)
    return located(source, data, download=True, progress=lines.append, access=access), lines


def test_a_folder_is_fetched_without_pickles_and_doubles_and_told_first(hub: Hub, tmp_path: Path) -> None:
    path, lines = fetch(SHARDED, tmp_path, hub)
    commit = hub.repositories["tests/sharded"].commit
    assert path == tmp_path / "models" / "tests" / "sharded" / commit
    there = {file.name for file in path.iterdir()}
    assert {"config.json", "tokenizer.json", "model-00001-of-00002.safetensors"} <= there
    assert not there & {"pytorch_model.bin", "consolidated.safetensors", "made.json"}
    for file in there - {kept.MANIFEST}:
        assert (path / file).read_bytes() == hub.repositories["tests/sharded"].files[file]
    assert "licence apache-2.0" in lines[1]
    assert "MB" in lines[1]
    assert commit[:12] in lines[1]
    assert any(line.startswith("downloading ") for line in lines[2:])
    assert [each.name for each in path.parent.iterdir() if each.name.startswith(".fetching")] == []


def test_the_manifest_keeps_the_hubs_own_sums(hub: Hub, tmp_path: Path) -> None:
    path, _ = fetch(SHARDED, tmp_path, hub)
    manifest = json.loads((path / kept.MANIFEST).read_bytes())
    assert manifest["licence"] == "apache-2.0"
    assert manifest["files"]["config.json"]["sum"].startswith("git:")
    assert manifest["files"]["model-00001-of-00002.safetensors"]["sum"].startswith("sha256:")
    assert json.loads((path.parent / "revisions.json").read_bytes()) == {"main": path.name}


def test_what_is_on_disk_is_used_without_asking(hub: Hub, tmp_path: Path) -> None:
    path, _ = fetch(SHARDED, tmp_path, hub)
    hub.asked.clear()
    assert fetch(SHARDED, tmp_path, hub) == (path, [])
    assert found(SHARDED, tmp_path) == path
    assert found(Source(f"hf:tests/sharded@{path.name}"), tmp_path) == path
    assert found(Source("hf:tests/sharded@v1"), tmp_path) is None
    assert hub.asked == []


def test_one_gguf_file_of_many_is_fetched_alone(hub: Hub, tmp_path: Path) -> None:
    source = Source("hf:tests/gguf@v1/q4/model-f32.gguf")
    path, _ = fetch(source, tmp_path, hub)
    assert path.read_bytes() == made("automaton").read_bytes()
    assert found(Source("hf:tests/gguf@v1/model-f16.gguf"), tmp_path) is None
    both, _ = fetch(Source("hf:tests/gguf@v1/model-f16.gguf"), tmp_path, hub)
    assert both.parent == path.parent.parent
    assert found(source, tmp_path) == path
    assert found(Source("hf:tests/gguf@v1"), tmp_path) is None


def test_all_parts_of_a_split_gguf_come_together(tmp_path: Path) -> None:
    names = [f"big-0000{number}-of-00003.gguf" for number in (1, 2, 3)]
    with serving_hub(split=Repository({name: name.encode() * 1000 for name in names})) as hub:
        path, _ = fetch(Source(f"hf:tests/split/{names[0]}"), tmp_path, hub)
    assert path.name == names[0]
    assert all((path.parent / name).read_bytes() == name.encode() * 1000 for name in names)


BIG = Source("hf:tests/big/big.gguf")
STEP = 10 * 2**20
"""What huggingface_hub writes at a time."""


@pytest.fixture
def big(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A file of two and a half steps, on a hub whose connections may be cut."""
    monkeypatch.setattr("time.sleep", lambda _: None)  # huggingface_hub's own pauses between its attempts
    with serving_hub(big=Repository({"big.gguf": random.Random(1).randbytes(5 * STEP // 2)})) as running:
        yield running


def test_a_cut_download_is_no_model_and_goes_on_where_it_stopped(big: Hub, tmp_path: Path) -> None:
    repository = big.repositories["tests/big"]
    repository.cut["big.gguf"] = [STEP + 1000] * 20
    with pytest.raises(HubError, match=r"does not answer .*what has arrived is kept"):
        fetch(BIG, tmp_path, big)
    assert found(BIG, tmp_path) is None
    assert list(kept.unfinished(tmp_path)) == [("tests/big", STEP)]
    repository.cut.clear()
    big.ranges.clear()
    path, _ = fetch(BIG, tmp_path, big)
    assert big.ranges == [f"bytes={STEP}-"]
    assert path.read_bytes() == repository.files["big.gguf"]
    assert list(kept.unfinished(tmp_path)) == []


def test_a_connection_that_breaks_once_is_taken_up_again(big: Hub, tmp_path: Path) -> None:
    repository = big.repositories["tests/big"]
    repository.cut["big.gguf"] = [STEP + 1000]
    path, _ = fetch(BIG, tmp_path, big)
    assert path.read_bytes() == repository.files["big.gguf"]
    assert big.ranges == [f"bytes={STEP}-"]


def test_a_part_with_a_broken_byte_is_thrown_away(big: Hub, tmp_path: Path) -> None:
    repository = big.repositories["tests/big"]
    arriving = tmp_path / "models" / "tests" / "big" / f".fetching-{repository.commit}"
    arriving.mkdir(parents=True)
    (arriving / "big.gguf").write_bytes(bytes(STEP))
    with pytest.raises(HubError, match=r"big\.gguf arrived broken"):
        fetch(BIG, tmp_path, big)
    path, _ = fetch(BIG, tmp_path, big)
    assert path.read_bytes() == repository.files["big.gguf"]


@pytest.mark.parametrize("name", ["config.json", "model-00002-of-00002.safetensors"])
def test_a_byte_that_arrives_broken_is_found_and_nothing_put_in_place(hub: Hub, tmp_path: Path, name: str) -> None:
    hub.repositories["tests/sharded"].broken.add(name)
    with pytest.raises(HubError, match=f"{name} arrived broken"):
        fetch(SHARDED, tmp_path, hub)
    assert found(SHARDED, tmp_path) is None
    hub.repositories["tests/sharded"].broken.clear()
    hub.asked.clear()
    fetch(SHARDED, tmp_path, hub)
    assert [line for line in hub.asked if line.startswith("GET /store") or "GET /tests" in line] != []
    assert all(name in line for line in hub.asked if line.startswith(("GET /store", "GET /tests")))


def test_a_byte_that_breaks_on_disk_is_found_and_only_that_file_fetched_anew(hub: Hub, tmp_path: Path) -> None:
    path, _ = fetch(SHARDED, tmp_path, hub)
    shard = path / "model-00001-of-00002.safetensors"
    content = bytearray(shard.read_bytes())
    content[1000] ^= 1
    shard.write_bytes(content)
    here = kept.kept(SHARDED, tmp_path)
    assert here is not None
    assert not here.untouched
    assert list(kept.verify(here)) == [shard.name]
    assert found(SHARDED, tmp_path) is None
    hub.asked.clear()
    fetch(SHARDED, tmp_path, hub)
    assert [line for line in hub.asked if line.startswith("GET /store")] == [f"GET /store/tests/sharded/{shard.name}"]
    again = kept.kept(SHARDED, tmp_path)
    assert again is not None
    assert kept.verify(again) == {}


def test_a_file_of_another_size_is_not_on_disk(hub: Hub, tmp_path: Path) -> None:
    path, _ = fetch(SHARDED, tmp_path, hub)
    (path / "tokenizer.json").write_bytes(b"{}")
    assert found(SHARDED, tmp_path) is None


def test_without_leave_to_download_nobody_is_asked(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(HubError, match="`hearth pull`, or set download: true"):
        located(SHARDED, tmp_path, download=False, progress=lambda _: None, access=Access(hub.url))
    assert hub.asked == []


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("hf:tests/nothing", "knows no tests/nothing, or does not show it to everybody"),
        ("hf:tests/sharded@v9", "has no revision v9"),
        ("hf:tests/gguf/q4/model-f33.gguf", "no q4/model-f33.gguf; it has q4/model-f32.gguf"),
        ("hf:tests/sharded/x.gguf", "it has no .gguf file at all"),
        ("hf:tests/gguf", "one must be named; it has model-f16.gguf, q4/model-f32.gguf"),
    ],
)
def test_what_is_not_there_is_one_sentence(hub: Hub, tmp_path: Path, source: str, sentence: str) -> None:
    with pytest.raises(HubError) as caught:
        fetch(Source(source), tmp_path, hub)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_pickles_alone_are_no_model(tmp_path: Path) -> None:
    with (
        serving_hub(old=Repository({"config.json": b"{}", "pytorch_model.bin": b"x"})) as hub,
        pytest.raises(HubError, match=r"no \*.safetensors; its weights are pickles"),
    ):
        fetch(Source("hf:tests/old"), tmp_path, hub)


def test_a_gated_repository_asks_for_a_token_which_the_store_never_sees(hub: Hub, tmp_path: Path) -> None:
    hub.repositories["tests/sharded"].gated = True
    with pytest.raises(HubError, match=r"gated: accept its terms at .*/tests/sharded and set HF_TOKEN"):
        fetch(SHARDED, tmp_path, hub)
    with pytest.raises(HubError, match="use the HF_TOKEN of an account that has"):
        fetch(SHARDED, tmp_path, hub, token="hf_wrong")
    fetch(SHARDED, tmp_path, hub, token=TOKEN)
    assert hub.to_the_store != []
    assert not any(name.lower() == "authorization" for headers in hub.to_the_store for name in headers)


def test_a_hub_that_cannot_be_reached_is_told_at_once(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(HubError, match=r"127\.0\.0\.1:9 does not answer"):
        located(SHARDED, tmp_path, download=True, progress=lambda _: None, access=Access("http://127.0.0.1:9"))
    with pytest.raises(HubError, match="HF_HUB_OFFLINE forbids"):
        located(SHARDED, tmp_path, download=True, progress=lambda _: None, access=Access(hub.url, offline=True))
    assert hub.asked == []


def test_only_what_may_pass_by_itself_is_told_apart(hub: Hub, big: Hub, tmp_path: Path) -> None:
    with pytest.raises(HubAway):
        located(SHARDED, tmp_path, download=True, progress=lambda _: None, access=Access("http://127.0.0.1:9"))
    big.repositories["tests/big"].cut["big.gguf"] = [STEP] * 20
    with pytest.raises(HubAway, match="what has arrived is kept"):
        fetch(BIG, tmp_path, big)
    hub.refuses = 503
    with pytest.raises(HubAway, match="answered with status 503"):
        fetch(SHARDED, tmp_path, hub)
    hub.refuses = 400
    with pytest.raises(HubError) as refused:
        fetch(SHARDED, tmp_path, hub)
    assert not isinstance(refused.value, HubAway)


def test_weights_that_do_not_fit_the_disk_are_refused_before_the_first_byte(hub: Hub, tmp_path: Path) -> None:
    hub.repositories["tests/gguf"].sizes["model-f16.gguf"] = 10**18
    with pytest.raises(HubError, match=r"needs 1\.0 EB and the disk of .* has .* free"):
        fetch(Source("hf:tests/gguf/model-f16.gguf"), tmp_path, hub)
    assert not any("resolve" in line for line in hub.asked)


def test_two_processes_fetch_once(hub: Hub, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from config.model import Source\n"
        "from server.models.hub import Access, located\n"
        "given = {'download': True, 'progress': lambda line: None, 'access': Access(sys.argv[3])}\n"
        "print(located(Source(sys.argv[1]), Path(sys.argv[2]), **given))"
    )
    command = [sys.executable, "-c", code, SHARDED, str(tmp_path), hub.url]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    paths = {process.communicate(timeout=60)[0] for process in running}
    assert len(paths) == 1
    fetched = [line for line in hub.asked if line.startswith("GET /store")]
    assert len(fetched) == len(set(fetched))


def test_looking_on_disk_imports_nothing_heavy() -> None:
    code = "import sys, server.models.hub; print('huggingface_hub' in sys.modules, 'httpx2' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "False False"


def test_a_token_is_taken_from_the_environment_and_never_printed() -> None:
    access = Access.of({"HF_TOKEN": TOKEN, "HF_ENDPOINT": "http://mirror/", "HTTPS_PROXY": "http://u:p@proxy"})
    assert (access.token, access.endpoint, access.offline) == (TOKEN, "http://mirror", False)
    assert "letmein" not in repr(access)
    assert "u:p" not in repr(access)
    assert Access.of({"HF_HUB_OFFLINE": "1"}).offline
