"""Weights of models nobody asks for go to a folder or a real S3-compatible server, and come back as they were."""

import fcntl
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import pytest
from pydantic import SecretStr
from rich.console import Console

from config import Recipe, RecipeError, load
from config.bucket import Bucket
from config.source import Source, cold_record
from server import backups, uploads
from server.errors import Conflict, ServiceError
from server.models import cold_weights
from server.models.cold_weights import ColdFault
from server.models.fit import overfull, plans
from server.models.header import WeightsError
from server.models.hub import located
from server.place import Place
from server.policies.backup.job import Backup
from server.policies.declared import policies_of
from server.policies.tiering.choosing import unasked
from server.policies.tiering.claim import claim
from server.policies.tiering.models import ModelTier
from server.policies.tiering.policy import TieringPolicy
from server.policies.tiering.uses import Uses
from server.policies.tiering.weights import Weights
from server.state import State
from tests.live import serving
from tests.policies.cold_weights import back, filled, run, silent, sums
from tests.s3 import ACCESS_KEY, S3, SECRET_KEY, s3_server

DAY = 86_400.0
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with s3_server() as found:
        yield found


@pytest.fixture(params=["folder", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path | Bucket:
    if request.param == "folder":
        return tmp_path / "cold"
    server: S3 = request.getfixturevalue("s3")
    url = f"{server.bucket(f'cold-{secrets.token_hex(4)}')}/weights"
    return Bucket(url=url, endpoint=server.endpoint, access_key=ACCESS_KEY, secret_key=SecretStr(SECRET_KEY))


def stored(place: Path | Bucket) -> list[str]:
    return sorted(Place(place).names("weights"))


# ---- there and back -------------------------------------------------------------------------------------------------


def test_weights_go_come_back_and_leave_nothing_there(place: Path | Bucket, tmp_path: Path) -> None:
    known = filled(tmp_path / "w")
    known[0].path.write_bytes(os.urandom(9 * 2**20))  # more than one part of an upload
    before = sums(known)
    times = {file: file.stat().st_mtime_ns for each in known for file in cold_weights.files_of(each.path)}
    report = run(place, known, known)
    assert report.figures["weights_out"] == 2 and report.figures["weight_bytes_out"] == 9 * 2**20 + 150_000
    assert sums(known) == {} and len(stored(place)) == 4 and not report.details
    assert all(cold_weights.is_away(each.path) for each in known)
    assert (tmp_path / "w" / "small" / "config.json").exists(), "small files stay"
    assert run(place, known, known).figures["weights_cold"] == 2, "what is away does not go again"
    back(place, known)
    assert sums(known) == before and {file: file.stat().st_mtime_ns for file in times} == times
    report = run(place, known, [])
    assert report.figures["weights_back"] == 2 and stored(place) == []
    assert not any(cold_record(each.path).exists() for each in known)


def test_a_copy_that_was_damaged_is_told_and_changes_nothing(place: Path | Bucket, tmp_path: Path) -> None:
    known = filled(tmp_path / "w")
    run(place, known, known)
    where = Place(place)
    name = stored(place)[0]
    data = bytearray(where.get(name))
    data[1000] ^= 1
    where.put(name, bytes(data))
    with pytest.raises(WeightsError, match=r"is damaged: .* nothing was changed"):
        back(place, known)
        back(place, known[1:])
    assert not [file for file in (tmp_path / "w").rglob("*.arriving")]
    data[1000] ^= 1
    where.put(name, bytes(data))
    back(place, known)
    assert len(sums(known)) == 4


def test_a_place_that_is_gone_is_told_and_asked_again_later(tmp_path: Path) -> None:
    known = filled(tmp_path / "w")
    run(tmp_path / "cold", known, known)
    (tmp_path / "cold").rename(tmp_path / "elsewhere")
    with pytest.raises(ColdFault, match="in cold storage and could not be brought back"):
        back(tmp_path / "cold", known)
    assert sums(known) == {}
    (tmp_path / "elsewhere").rename(tmp_path / "cold")
    for each in known:
        cold_weights.bring(each.path, None, silent)  # a recipe that names the place no more
    assert len(sums(known)) == 4
    unreachable = Bucket(url="s3://cold", endpoint="http://127.0.0.1:9", access_key="a", secret_key=SecretStr("b" * 8))
    with pytest.raises(ServiceError, match="s3://cold"):
        run(unreachable, known, known)
    assert len(sums(known)) == 4


def test_a_store_that_gives_back_something_else_removes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = filled(tmp_path / "w")
    before = sums(known)
    monkeypatch.setattr(Place, "stream", lambda self, name: iter([b"something else"]))
    with pytest.raises(ServiceError, match=r"gives back big-00001-of-00002\.gguf with the sum"):
        run(tmp_path / "cold", known, known)
    assert sums(known) == before
    monkeypatch.undo()
    assert run(tmp_path / "cold", known, known).figures["weights_out"] == 2


def test_what_is_in_use_linked_or_written_to_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    big, small = filled(tmp_path / "w")
    with big.path.open("rb") as opened:
        fcntl.flock(opened, fcntl.LOCK_SH)  # as a worker does that has loaded it
        report = run(tmp_path / "cold", [big, small], [big, small])
    assert report.details == ("big: stays, for its weights are in use",) and set(sums([big, small])) == set(sums([big]))
    os.link(big.path, tmp_path / "another name")
    assert "has other names" in run(tmp_path / "cold", [big], [big]).details[0]
    (tmp_path / "another name").unlink()
    link = Weights(tmp_path / "link.gguf", ("link",))
    link.path.symlink_to(big.path)
    assert "is a link" in run(tmp_path / "cold", [link], [link]).details[0]
    send = Place.send

    def written_to(self: Place, *given: object) -> None:
        send(self, *given)  # type: ignore[arg-type]
        os.utime(big.path)

    monkeypatch.setattr(Place, "send", written_to)
    assert "changed while it was copied" in run(tmp_path / "cold", [big], [big]).details[0]
    assert len(sums([big])) == 2 and not cold_record(big.path).exists() and len(stored(tmp_path / "cold")) == 2


def test_what_a_user_put_in_the_place_of_cold_weights_counts_and_their_copy_stays(tmp_path: Path) -> None:
    big, _ = filled(tmp_path / "w")
    run(tmp_path / "cold", [big], [big])
    for file in cold_weights.files_of(big.path):
        file.write_bytes(b"another model")
    report = run(tmp_path / "cold", [big], [big])
    assert "is another file than the one at" in report.details[0] and report.figures["weights_out"] == 0
    assert big.path.read_bytes() == b"another model" and len(stored(tmp_path / "cold")) == 2


def test_another_place_in_the_recipe_takes_over_from_the_one_before(tmp_path: Path) -> None:
    known = filled(tmp_path / "w")
    run(tmp_path / "cold", known, known)
    assert run(tmp_path / "new", known, known).figures["weights_cold"] == 2, "where it is, it stays while it is away"
    back(tmp_path / "new", known)
    report = run(tmp_path / "new", known, known)
    assert (report.figures["weights_back"], report.figures["weights_out"], report.details) == (2, 2, ())
    assert stored(tmp_path / "cold") == [] and len(stored(tmp_path / "new")) == 4
    back(tmp_path / "new", known)
    shutil.rmtree(tmp_path / "new")
    report = run(tmp_path / "cold", known, known)
    assert report.figures["weights_out"] == 2 and "stays there: there is no folder" in report.details[0]


def test_weights_that_are_open_do_not_move_and_cold_ones_come_back_to_be_opened(tmp_path: Path) -> None:
    big, _ = filled(tmp_path / "w")
    before = sums([big])
    run(tmp_path / "cold", [big], [big])
    code = (
        "import sys\nfrom pathlib import Path\nfrom config.source import Source\n"
        "from server.models.hub import located\n"
        "print(located(Source(sys.argv[1]), Path('.'), download=False, progress=print), flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(big.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as worker:
        assert worker.stdout is not None
        assert "bringing back" in worker.stdout.readline() and worker.stdout.readline().strip() == str(big.path)
        assert sums([big]) == before
        report = run(tmp_path / "cold", [big], [big])
        assert report.figures["weights_back"] == 1 and "in use" in report.details[0]
    assert run(tmp_path / "cold", [big], [big]).figures["weights_out"] == 1


def test_a_process_killed_at_any_call_loses_nothing_and_leaves_nothing() -> None:
    memory = Path("/dev/shm")
    with TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        command = [sys.executable, "-m", "tests.policies.cold_weights", folder]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    *lines, points, last = done.stdout.splitlines()
    assert points.endswith(" points") and len(lines) == int(points.split()[0]) > 40
    assert all(line.endswith("nothing lost, nothing left") for line in (*lines, last)), done.stdout


# ---- the policy -----------------------------------------------------------------------------------------------------


def test_what_was_asked_for_longest_ago_goes_first_and_pinned_ones_never() -> None:
    since = {Path(name): days * DAY for name, days in {"old": 1.0, "new": 60.0, "oldest": 0.0, "pinned": 0.0}.items()}
    assert unasked(since, {Path("pinned")}, 30 * DAY, 61 * DAY) == [Path("oldest"), Path("old")]


def written(folder: Path, more: str = "") -> Recipe:
    (folder / "recipe.yaml").write_text(
        "version: 1\n"
        "server: {data: ./data}\n"
        "models:\n"
        "  big: {engine: llamacpp, source: ./w/big-00001-of-00002.gguf}\n"
        "  again: {engine: llamacpp, source: ./w/big-00001-of-00002.gguf}\n"
        "  small: {engine: auto, source: ./w/small, task: embed, pin: true}\n"
        f"policies: {{tiering: {{models: {{cold: ./cold, after: 10d}}}}}}\n{more}",
        encoding="utf-8",
    )
    return load(folder / "recipe.yaml")


@asynccontextmanager
async def tier(recipe: Recipe, clock: list[float]) -> AsyncIterator[ModelTier]:
    spec = recipe.policies.tiering
    assert spec is not None and spec.models is not None
    recipe.server.data.mkdir(exist_ok=True)
    async with State.open(recipe.server.data / "state.db") as state:
        yield ModelTier(recipe, spec.models, Uses(state, []), {}, lambda: clock[0])


@pytest.mark.anyio
async def test_weights_go_after_the_time_of_the_recipe_and_pinned_ones_stay(tmp_path: Path) -> None:
    filled(tmp_path / "w")
    recipe = written(tmp_path)
    clock = [0.0]
    async with tier(recipe, clock) as models:
        assert (await models.run(silent)).figures["weights_out"] == 0, "their time begins when they are first seen"
        clock[0] = 9 * DAY
        assert (await models.run(silent)).figures["weights_out"] == 0
        clock[0] = 10 * DAY
        assert (await models.run(silent)).figures["weights_out"] == 1
    small, big = tmp_path / "w" / "small", tmp_path / "w" / "big-00001-of-00002.gguf"
    assert cold_weights.is_away(big) and not cold_weights.is_away(small)
    again = load(tmp_path / "recipe.yaml")  # a file that is away with a record is no fault
    with pytest.raises(RecipeError, match="does not exist"):
        cold_record(big).rename(tmp_path / "aside")
        load(tmp_path / "recipe.yaml")
    (tmp_path / "aside").rename(cold_record(big))
    async with tier(again, clock) as models:
        located(Source(str(big)), recipe.server.data, download=False, progress=silent)
        clock[0] = 11 * DAY
        report = await models.run(silent)
        assert report.figures["weights_back"] == 1 and report.figures["weights_out"] == 0, "and begins anew"


@pytest.mark.anyio
async def test_a_place_of_another_data_directory_is_refused(tmp_path: Path) -> None:
    filled(tmp_path / "w")
    recipe = written(tmp_path)
    recipe.server.data.mkdir()
    claim(tmp_path / "cold", "somebody else")
    async with State.open(recipe.server.data / "state.db") as state:
        [policy] = policies_of(recipe, state, {})
        assert isinstance(policy, TieringPolicy)
        with pytest.raises(Conflict, match=r"policies\.tiering\.models\.cold"):
            await policy.run(silent)


def test_a_part_that_would_do_nothing_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("version: 1\npolicies: {tiering: {models: {after: 3d}}}\n", encoding="utf-8")
    with pytest.raises(RecipeError, match="neither `memory` nor `cold`"):
        load(tmp_path / "recipe.yaml")


# ---- uploads that were cut off -------------------------------------------------------------------------------------


def test_a_request_is_signed_as_amazons_example_is() -> None:
    """https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html, GET Bucket Lifecycle."""
    key = uploads.Key("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
    moment = datetime(2013, 5, 24, tzinfo=UTC)
    host = "examplebucket.s3.amazonaws.com"
    headers = uploads.signed(key, "us-east-1", "GET", host, "/", {"lifecycle": ""}, moment)
    told = "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"
    assert headers["authorization"].endswith(f"Signature={told}")


def test_an_upload_that_a_killed_run_left_is_removed_by_the_next(s3: S3, tmp_path: Path) -> None:
    url = s3.bucket("killed")
    place = Bucket(url=f"{url}/below", endpoint=s3.endpoint, access_key=ACCESS_KEY, secret_key=SecretStr(SECRET_KEY))
    with httpx.Client(base_url=f"{s3.endpoint}/killed", trust_env=False, timeout=30) as client:

        def unfinished() -> list[str]:
            told = client.get("", params={"uploads": ""}).raise_for_status().text
            return sorted(part.partition("</Key>")[0] for part in told.split("<Key>")[1:])

        for name in ("below/weights/a b+c", "below/weights/d", "other/weights/e", "below/packs/f"):
            client.post(f"/{name}", params={"uploads": ""}).raise_for_status()
        assert len(unfinished()) == 4
        known = filled(tmp_path / "w")
        report = run(place, known, [])
        assert "2 uploads that a run left unfinished were removed" in report.details
        assert unfinished() == ["below/packs/f", "other/weights/e"]
        assert run(place, known, known).details == () and unfinished() == ["below/packs/f", "other/weights/e"]


# ---- backups --------------------------------------------------------------------------------------------------------


def test_a_backup_keeps_cold_weights_that_it_had_and_names_those_it_never_had(tmp_path: Path) -> None:
    big, small = filled(tmp_path / "w")
    before = sums([big, small])
    recipe = written(tmp_path)
    policies = "tiering: {models: {cold: ./cold}}, backup: {to: ./backups, what: [models]}"
    recipe.path.write_text(recipe.path.read_text().partition("policies:")[0] + f"policies: {{{policies}}}\n")
    recipe = load(recipe.path)
    backup = Backup.declared(recipe, silent)
    run(tmp_path / "cold", [small], [small])
    report = backup.make(recipe)
    assert [each for each in report.details if "left out" in each] == [
        f"left out: models/small/{name}.safetensors: in cold storage: 100.0 kB at {tmp_path / 'cold'}, and no snapshot "
        "has it"
        for name in "ab"
    ]
    run(tmp_path / "cold", [big], [big])
    second = backup.make(recipe)
    assert second.figures["bytes_read"] == 0 and second.figures["files"] == report.figures["files"]
    assert backup.verify() == (2, [])
    _, files = backup.chosen(None, "models/big")
    backup.write(files, lambda file: tmp_path / "out" / file.path)
    out = Weights(tmp_path / "out" / "models" / "big" / big.path.name, ("big",))
    assert sums([out]).items() <= before.items() and len(sums([out])) == 2
    err, told = StringIO(), StringIO()
    opened = backups.of_recipe(recipe)
    assert backups.verify(opened, Console(file=told, width=300), Console(file=err)) == 0
    assert "models/small/a.safetensors: in cold storage: 100.0 kB at" in told.getvalue()


# ---- a server -------------------------------------------------------------------------------------------------------


def test_a_server_moves_a_model_says_so_and_the_next_request_brings_it_back(tmp_path: Path) -> None:
    made = located(Source("made:automaton"), tmp_path, download=False, progress=silent)
    (tmp_path / "chat.gguf").write_bytes(made.read_bytes())
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "version: 1\nmodels:\n  chat: {engine: auto, source: ./chat.gguf}\n"
        "policies: {tiering: {models: {cold: ./cold, after: 1ms}}}\n",
        encoding="utf-8",
    )
    ask = {"model": "chat", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 5, "temperature": 0}
    [here] = plans(load(recipe))
    assert here.memory is not None and here.memory.cache > 0
    with serving(recipe, tmp_path / "data") as live, live.client() as client:
        wanted = client.post("/v1/chat/completions", json=ask).raise_for_status().json()["choices"]
        moved = client.post("/v1/policies/tiering/run").raise_for_status().json()
        assert moved["figures"]["weights_out"] == 1 and not (tmp_path / "chat.gguf").exists(), moved
        card = client.get("/v1/models/chat").json()
        assert card["status"] == {"value": "unloaded", "cold": True} and card["context_length"] == 8192
    [away] = plans(load(recipe))
    assert away.cold and away.memory == here.memory, "what it will take stays known too"
    assert overfull(load(recipe), [away], here.memory.total - 1) != []
    with serving(recipe, tmp_path / "data") as live, live.client() as client:
        card = client.get("/v1/models/chat").json()
        assert card["status"] == {"value": "unloaded", "cold": True}, "a start does not bring it back"
        assert card["context_length"] == 8192, "what it is stays known"
        assert client.post("/v1/chat/completions", json=ask).raise_for_status().json()["choices"] == wanted
        assert (tmp_path / "chat.gguf").read_bytes() == made.read_bytes()
        assert client.get("/v1/models/chat").json()["status"] == {"value": "loaded"}
