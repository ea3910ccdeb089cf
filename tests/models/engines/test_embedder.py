"""The embedding engine: rows in order whatever the batches, token ids as good as text, no one kept waiting."""

import numpy as np
import pytest

from server.errors import ContextLengthExceeded, InvalidValue
from server.models.engine import Embed, Engine, Vectors, is_last
from tests.models.engines.driving import DIMENSION, embedding, finished, steps, vectors

_TEXTS = [f"Row {n} of some length: " + "word " * (n * 7 % 60) for n in range(120)]


def test_rows_come_in_the_order_of_the_inputs_at_unit_length(embedder: Engine) -> None:
    [events] = finished(embedder, embedding("a cat", "tax law of 1986, as amended since then", "a kitten"))
    rows = vectors(events)
    assert rows.shape == (3, DIMENSION)
    assert np.linalg.norm(rows, axis=1) == pytest.approx(np.ones(3), abs=1e-3)
    assert rows[0] @ rows[2] > rows[0] @ rows[1] + 0.3


def test_many_batches_give_what_single_texts_give(embedder: Engine) -> None:
    [events] = finished(embedder, embedding(*_TEXTS))
    assert len(events) > 2
    rows = vectors(events)
    for place in (0, 1, 59, 119):
        [alone] = finished(embedder, embedding(_TEXTS[place]))
        assert float(vectors(alone)[0] @ rows[place]) >= 0.9999


def test_requests_that_share_batches_get_their_own_rows(embedder: Engine) -> None:
    requests = [embedding(f"text number {n}", f"and another, {n}, a bit longer than that") for n in range(9)]
    together = finished(embedder, *requests)
    for request, events in zip(requests, together, strict=True):
        [alone] = finished(embedder, request)
        assert (vectors(alone) * vectors(events)).sum(axis=1).min() >= 0.9999


def test_token_ids_give_what_their_text_gives(embedder: Engine) -> None:
    bare = [[1996, 4248, 2829, 4419], [14523]]
    [by_text, by_ids] = finished(embedder, embedding("the quick brown fox", "jumps"), Embed(tokens=bare))
    assert (vectors(by_text) * vectors(by_ids)).sum(axis=1).min() >= 0.99999


def test_special_tokens_are_counted(embedder: Engine) -> None:
    assert embedder.submit(1, Embed(tokens=[[2054], [2054, 2003]])).prompt_tokens == 2 * 2 + 3
    embedder.cancel(1)


@pytest.mark.parametrize("token", [-1, 30522, 10**12])
def test_a_token_id_outside_the_vocabulary_is_refused_by_place(token: int, embedder: Engine) -> None:
    with pytest.raises(InvalidValue, match="out of vocabulary: this model has 30522 tokens") as refused:
        embedder.submit(1, Embed(tokens=[[2054], [token]]))
    assert refused.value.param == "input[1]"
    assert not embedder.busy


def test_the_longest_input_is_the_window_with_its_special_tokens(embedder: Engine) -> None:
    embedder.submit(1, Embed(tokens=[[2054] * 510]))
    assert len(steps(embedder)) == 1
    with pytest.raises(ContextLengthExceeded, match="your input resulted in 513 tokens"):
        embedder.submit(1, Embed(tokens=[[2054], [2054] * 511]))


def test_a_query_goes_before_the_rest_of_a_bulk_request_and_alone(embedder: Engine) -> None:
    embedder.submit(1, embedding(*_TEXTS))
    embedder.step()
    embedder.submit(2, embedding("one short query"))
    events = embedder.step()
    assert [key for key, event in events if is_last(event)] == [2]
    bulk = [event for key, event in events if key == 1 and isinstance(event, Vectors)]
    assert sum(len(event.indices) for event in bulk) <= 100
    steps(embedder)


def test_a_bulk_request_is_not_starved_by_queries(embedder: Engine) -> None:
    embedder.submit(0, Embed(tokens=[[2054] * 400] * 12))
    served = 0
    for key in range(1, 60):
        embedder.submit(key, embedding("one short query"))
        served += sum(owner == 0 for owner, _ in embedder.step())
    assert served >= 3
    steps(embedder)


def test_a_cancelled_bulk_request_frees_the_engine_between_batches(embedder: Engine) -> None:
    embedder.submit(1, embedding(*_TEXTS * 10))
    embedder.step()
    embedder.submit(2, embedding("one short query"))
    embedder.cancel(1)
    assert [key for key, _ in embedder.step()] == [2]
    assert not embedder.busy
