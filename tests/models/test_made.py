"""Models that Hearth makes itself: one of each, once."""

from pathlib import Path

import pytest

from config.source import MADE, Source
from server.models.hub import located
from server.models.kept import found


@pytest.mark.parametrize("name", MADE)
def test_each_is_made_once_where_an_engine_finds_it(name: str, tmp_path: Path) -> None:
    source = Source(f"made:{name}")
    assert found(source, tmp_path) is None
    told: list[str] = []
    path = located(source, tmp_path, download=False, progress=told.append)
    assert found(source, tmp_path) == path
    assert told == [f"making made:{name}"]
    before = path.stat().st_mtime_ns
    assert located(source, tmp_path, download=False, progress=told.append) == path
    assert path.stat().st_mtime_ns == before
