"""Engines over small models, loaded once; each test leaves its engine idle and all of its pages free."""

from collections.abc import Iterator

import pytest

from server.models.engines.paged import PagedEngine
from server.models.made.shapes import FAMILIES
from tests.making import made
from tests.models.engines.paged.answering import opened


@pytest.fixture(scope="session")
def families() -> dict[str, PagedEngine]:
    return {family: opened(made("random", family=family)) for family in FAMILIES}


def _clean(engine: PagedEngine) -> Iterator[PagedEngine]:
    yield engine
    assert not engine.busy
    assert len(engine.schedule) == 0
    assert engine.pages.free == engine.pages.count


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest, families: dict[str, PagedEngine]) -> Iterator[PagedEngine]:
    yield from _clean(families[request.param])


@pytest.fixture
def llama(families: dict[str, PagedEngine]) -> Iterator[PagedEngine]:
    yield from _clean(families["llama"])


@pytest.fixture(scope="session")
def speaking() -> PagedEngine:
    return opened(made("automaton"))


@pytest.fixture
def automaton(speaking: PagedEngine) -> Iterator[PagedEngine]:
    yield from _clean(speaking)
