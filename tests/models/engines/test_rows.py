"""Batches of waiting rows: small enough for their model, complete whatever the order they are taken in."""

import pytest

from server.models.engines.encoders.rows import Rows


def _taken(rows: Rows) -> list[list[tuple[int, int]]]:
    batches: list[list[tuple[int, int]]] = []
    for _ in range(1000):
        if not rows:
            return batches
        batch = rows.take()
        batches.append([(row.key, row.place) for row in batch])
        for key in {row.key for row in batch}:
            rows.ended(key)
    raise AssertionError("there was always one more batch")


@pytest.mark.parametrize(("weights", "tokens"), [(1, 1536), (10_616_832, 1536), (85_000_000, 191), (300_000_000, 128)])
def test_a_bigger_model_gets_smaller_batches(weights: int, tokens: int) -> None:
    rows = Rows(weights)
    rows.add(1, ((place, [7] * 10) for place in range(400)))
    assert len(rows.take()) == tokens // 10


def test_a_row_longer_than_a_batch_goes_alone() -> None:
    rows = Rows(300_000_000)
    rows.add(1, [(0, [7] * 500), (1, [7] * 501)])
    assert _taken(rows) == [[(1, 0)], [(1, 1)]]


def test_every_row_is_taken_once() -> None:
    rows = Rows()
    for key in range(5):
        rows.add(key, ((place, [7] * (1 + place * 13 % 90)) for place in range(50)))
    taken = [each for batch in _taken(rows) for each in batch]
    assert sorted(taken) == [(key, place) for key in range(5) for place in range(50)]


def test_a_dropped_request_is_not_taken() -> None:
    rows = Rows()
    rows.add(1, [(0, [7])])
    rows.add(2, [(0, [7])])
    rows.drop(1)
    rows.drop(99)
    assert _taken(rows) == [[(2, 0)]]
