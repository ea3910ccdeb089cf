"""The clients as they are written down: in folders, in locks, and in the handbook's table."""

import re
from pathlib import Path

import pytest

from tests.clients.client import CLIENTS, HERE, Client
from tests.clients.outcome import Outcome
from tests.clients.table import PAGE, named, written

_EACH = pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)


def test_every_folder_is_a_client_and_the_reverse() -> None:
    folders = {each.parent.name for each in HERE.glob("*/check.*")}
    assert folders == {client.name for client in CLIENTS}


def test_the_handbook_names_the_clients_and_versions_of_the_locks() -> None:
    assert named() == [(client.title, client.package, client.version) for client in CLIENTS]


@_EACH
def test_a_lock_is_exact_names_no_server_and_brings_no_engine(client: Client) -> None:
    text = client.lock.read_text(encoding="utf-8")
    assert "://" not in text and " @ " not in text
    pinned = client.pinned()
    assert client.version
    assert not {"torch", "transformers", "tensorflow"} & {name.lower() for name in pinned}
    if not client.is_node:
        assert all(re.fullmatch(r"[\w.\-]+==\S+", line) for line in text.splitlines())


def test_the_table_is_written_in_place_of_the_old_one(tmp_path: Path) -> None:
    page = tmp_path / "clients.md"
    page.write_text(PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    first, second = CLIENTS[:2]
    written({first: [Outcome(first, "a", True, ""), Outcome(first, "b", False, "x")], second: []}, page)
    assert named(page) == [(each.title, each.package, each.version) for each in (first, second)]
    assert "| 2 | 1 failed |" in page.read_text(encoding="utf-8")
    assert page.read_text(encoding="utf-8").endswith(PAGE.read_text(encoding="utf-8").splitlines()[-1] + "\n")
