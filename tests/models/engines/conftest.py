"""Engines are loaded once for all tests of this folder; each test leaves its engine idle."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from server.models.engine import Engine
from tests.models.engines.driving import SPECS, loaded


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("engines")


@pytest.fixture(scope="session")
def engines(cache: Path) -> Iterator[dict[str, Engine]]:
    ready = {name: loaded(spec, cache) for name, spec in SPECS.items()}
    yield ready
    for engine in ready.values():
        engine.close()


@pytest.fixture
def echo(engines: dict[str, Engine]) -> Engine:
    return engines["echo"]


@pytest.fixture
def embedder(engines: dict[str, Engine]) -> Engine:
    return engines["openvino"]


@pytest.fixture
def reader(engines: dict[str, Engine]) -> Engine:
    return engines["reader"]
