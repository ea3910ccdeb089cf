"""Engines are loaded once for all tests of this folder, when the first asks; each test leaves its engine idle."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from server.models.engine import Engine
from tests.models.engines.driving import SPECS, loaded
from tests.models.engines.exllama.processor import on_processor
from tests.models.engines.paged.compiled import MISSING as NO_COMPILER
from tests.models.engines.paged.compiled import given


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data directory of all engines here, in which the kernel is built where this machine can."""
    data = tmp_path_factory.mktemp("engines")
    return data if NO_COMPILER else given(data)


class _Loaded(dict[str, Engine]):
    """Engines by the names of the contract's rows."""

    def __init__(self, cache: Path) -> None:
        super().__init__()
        self._cache = cache

    def __missing__(self, name: str) -> Engine:
        self[name] = loaded(SPECS[name], self._cache)
        return self[name]


@pytest.fixture(scope="session")
def engines(cache: Path) -> Iterator[dict[str, Engine]]:
    ready = _Loaded(cache)
    yield ready
    for engine in ready.values():
        engine.close()


@pytest.fixture(autouse=True)
def gpu_or_processor(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test over the engine exllamav2 computes on the processor."""
    named = getattr(request.node, "callspec", None)
    if named is None or named.params.get("name") != "exllamav2":
        yield
        return
    with on_processor():
        yield


@pytest.fixture
def echo(engines: dict[str, Engine]) -> Engine:
    return engines["echo"]


@pytest.fixture
def embedder(engines: dict[str, Engine]) -> Engine:
    return engines["openvino"]


@pytest.fixture
def reader(engines: dict[str, Engine]) -> Engine:
    return engines["reader"]
