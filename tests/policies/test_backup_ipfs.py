"""Snapshots on an IPFS node: imported once, pinned, let go, and brought back through its gateway."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.errors import ServiceError
from server.policies.backup.seal import seal_of
from server.policies.backup.snapshot import path_of
from tests.policies.ipfs_node import Node, ipfs_node
from tests.policies.test_backup import KEY, MB, backup, made, noise, originals, written


@pytest.fixture
def node() -> Iterator[Node]:
    with ipfs_node() as node:
        yield node


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "one.gguf").write_bytes(noise(2 * MB, 1))
    (tmp_path / "weights" / "two.gguf").write_bytes(noise(100, 2))
    return tmp_path


@pytest.mark.parametrize("key", [None, KEY])
def test_the_list_of_files_and_a_gateway_are_enough(node: Node, folder: Path, key: str | None) -> None:
    recipe = written(folder, f"ipfs: '{node.url}'" + (f", key: {key}" if key else ""))
    made(recipe)
    [snapshot] = backup(recipe).snapshots()
    assert node.pins == set(snapshot.sealed if key else [snapshot.cid])
    node.collect()
    wanted = originals(folder)
    manifest = folder / "backups" / path_of(snapshot.name, seal_of(key))
    manifest = manifest.rename(folder / manifest.name)
    (folder / "key.txt").write_text(f"# made for a test\n{KEY}\n", encoding="utf-8")
    command = [sys.executable, "-m", "server", "restore", "--manifest", str(manifest), "--gateway", node.url]
    command += ["--to", str(folder / "out"), *(["--key-file", str(folder / "key.txt")] if key else [])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    out = folder / "out"
    assert {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()} == wanted


def test_a_node_is_given_what_is_new_and_unpins_what_went(node: Node, folder: Path) -> None:
    recipe = written(folder, f"ipfs: '{node.url}', keep: 1")
    made(recipe)
    first, imports = node.pins.copy(), node.imports
    (folder / "weights" / "two.gguf").write_bytes(noise(100, 3))
    made(recipe)
    assert node.imports == imports + 1, "one pack for the file that changed and the folders above it"
    assert len(node.pins) == 1 and node.pins != first
    node.collect()
    assert node.file(next(cid for cid in node.blocks if node.blocks[cid] == noise(100, 3))) == noise(100, 3)


def test_a_node_that_forgot_is_given_everything_again(node: Node, folder: Path) -> None:
    recipe = written(folder, f"ipfs: '{node.url}'")
    made(recipe)
    node.pins.clear()
    node.collect()
    assert not node.blocks
    made(recipe)
    [_, snapshot] = backup(recipe).snapshots()
    assert node.pins == {snapshot.cid}


def test_without_its_node_the_run_fails_and_the_snapshot_is_there(node: Node, folder: Path) -> None:
    recipe = written(folder, "ipfs: 'http://127.0.0.1:9'")
    with pytest.raises(ServiceError, match=r"IPFS node http://127\.0\.0\.1:9"):
        made(recipe)
    assert backup(recipe).verify() == (1, [])
    made(written(folder, f"ipfs: '{node.url}'"))
    assert len(node.pins) == 1
