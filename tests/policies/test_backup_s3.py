"""Backups in a bucket of a real S3-compatible server, and in one that forgets its conditions."""

import json
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from threading import enumerate as enumerate_threads

import pytest

from config import load
from server import place as place_room
from server.errors import Conflict, ServiceError
from server.place import Place
from server.policies.backup.job import Backup
from tests.policies.test_backup import MB, backup, made, noise, originals, restored
from tests.s3 import S3, s3_server


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with s3_server() as server:
        yield server


def written(folder: Path, place: str) -> Path:
    (folder / "weights").mkdir(exist_ok=True)
    (folder / "weights" / "one.gguf").write_bytes(noise(2 * MB, 1))
    (folder / "weights" / "two.gguf").write_bytes(noise(100, 2))
    file = folder / "recipe.yaml"
    file.write_text(
        "version: 1\n"
        "server: {data: ./data}\n"
        "models:\n"
        "  one: {engine: llamacpp, source: ./weights/one.gguf}\n"
        "  two: {engine: llamacpp, source: ./weights/two.gguf}\n"
        "policies:\n"
        f"  backup: {{to: {place}, keep: 2}}\n",
        encoding="utf-8",
    )
    return file


def place_of(file: Path) -> Place:
    spec = load(file).policies.backup
    assert spec is not None
    return Place(spec.to)


def test_a_bucket_holds_what_a_folder_does(s3: S3, tmp_path: Path) -> None:
    recipe = written(tmp_path, s3.spec(f"{s3.bucket('whole')}/below/this"))
    for seed in (1, 5, 6):
        (tmp_path / "weights" / "two.gguf").write_bytes(noise(100, seed))
        made(recipe)
    assert len(backup(recipe).snapshots()) == 2
    assert backup(recipe).verify() == (2, [])
    assert restored(recipe, tmp_path / "out") == originals(tmp_path)
    place = place_of(recipe)
    assert not place.names("lease.json") and not place.names("probe"), "nothing of the run itself stays"


def test_another_runs_lease_keeps_out_until_it_is_over(s3: S3, tmp_path: Path) -> None:
    recipe = written(tmp_path, s3.spec(s3.bucket("leased")))
    place = place_of(recipe)
    with place.held(), pytest.raises(Conflict, match="Another run is changing"):
        made(recipe)
    place.put("lease.json", json.dumps({"owner": "one that died", "until": time.time() - 1}).encode())
    made(recipe)
    assert len(backup(recipe).snapshots()) == 1


def test_whose_lease_another_took_changes_nothing_more(s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a sleep of the machine. The other's lease is not let go of either."""
    monkeypatch.setattr(place_room, "_RENEW_S", 0.01)
    recipe = written(tmp_path, s3.spec(s3.bucket("taken")))
    place, other = place_of(recipe), place_of(recipe)
    theirs = json.dumps({"owner": "another", "until": time.time() + 100}).encode()
    with pytest.raises(ServiceError, match=r"lease on .* was lost in the middle"), place.held():
        other.put("lease.json", theirs)
        next(each for each in enumerate_threads() if each.name == "lease").join(30)  # it ends when it sees that
        with pytest.raises(ServiceError, match="was lost"):
            place.delete(["packs/x.car"])
        place.put("packs/x.car", b"x")
    assert other.get("lease.json") == theirs and not other.names("packs")


def test_what_was_put_is_there_for_another_machine(s3: S3, tmp_path: Path) -> None:
    url = s3.bucket("moved")
    made(written(tmp_path, s3.spec(url)))
    other = tmp_path / "other"
    other.mkdir()
    moved = written(other, s3.spec(url))
    assert made(moved).figures["bytes_stored"] < 20_000, "the other machine finds every block there"
    assert backup(moved).verify() == (2, [])


def test_a_bucket_that_cannot_be_used_is_told(s3: S3, tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match="nowhere"):
        made(written(tmp_path, s3.spec("s3://nowhere")))
    unreachable = "{url: s3://bucket, endpoint: 'http://127.0.0.1:9', access_key: a, secret_key: secret-1234}"
    with pytest.raises(ServiceError, match="s3://bucket"):
        made(written(tmp_path, unreachable))


class _Forgetful(BaseHTTPRequestHandler):
    """Takes every put, whatever its condition, as some stores do."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *told: object) -> None:
        """Nothing."""

    def do_PUT(self) -> None:
        self._body()
        self._answer(b"")

    def do_POST(self) -> None:
        """Several deleted at once."""
        told = self._body().partition(b"<Key>")[2].partition(b"</Key>")[0]
        self._answer(b"<DeleteResult><Deleted><Key>" + told + b"</Key></Deleted></DeleteResult>")

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("content-length", 0)))

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("etag", '"same"')
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def test_a_store_that_ignores_conditions_is_refused(tmp_path: Path) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Forgetful)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        endpoint = f"http://127.0.0.1:{server.server_address[1]}"
        place = f"{{url: s3://bucket, endpoint: '{endpoint}', access_key: a, secret_key: secret-1234}}"
        file = written(tmp_path, place)
        with pytest.raises(ServiceError, match="ignores conditional puts"):
            Backup.declared(load(file), lambda sentence: None).make(load(file))
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
