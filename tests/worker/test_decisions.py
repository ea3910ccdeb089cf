"""What is decided without a process: frames, restarts, hangs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.worker import restart
from server.worker.frames import MAX_FRAME, FrameError, FrameReader, Submit, encode, to_worker


@given(st.lists(st.binary(max_size=200), max_size=8), st.integers(1, 50))
def test_frames_survive_any_cutting(bodies: list[bytes], piece: int) -> None:
    stream = b"".join(encode(Submit(number, body)) for number, body in enumerate(bodies))
    reader = FrameReader()
    whole = [body for at in range(0, len(stream), piece) for body in reader.feed(stream[at : at + piece])]
    assert [to_worker.decode(body) for body in whole] == [Submit(number, body) for number, body in enumerate(bodies)]


def test_a_length_that_cannot_be_right_is_refused() -> None:
    with pytest.raises(FrameError):
        list(FrameReader().feed((MAX_FRAME + 1).to_bytes(4, "big")))


def test_the_pause_doubles_to_a_limit_and_starts_over_after_a_stable_life() -> None:
    history = restart.History()
    pauses = []
    for _ in range(12):
        history = history.after(ready_for=1.0)
        pauses.append(restart.delay(history))
    assert pauses[:4] == [0.2, 0.4, 0.8, 1.6]
    assert pauses[-1] == restart.LONGEST_DELAY
    assert restart.delay(history.after(ready_for=restart.STABLE_AFTER)) == restart.FIRST_DELAY


def test_starts_that_fail_in_a_row_are_given_up() -> None:
    history = restart.History()
    for _ in range(restart.MOST_FAILED_STARTS):
        assert restart.delay(history.after(ready_for=1.0)) is not None
        history = history.after(ready_for=None)
    assert restart.delay(history) is None


def test_what_waits_for_something_that_is_away_is_never_given_up() -> None:
    history = restart.History().after(ready_for=None)
    for _ in range(5000):
        history = history.waiting()
    assert restart.delay(history) == restart.LONGEST_DELAY
    assert restart.delay(restart.History().waiting()) == restart.FIRST_DELAY


def test_a_hang_is_silence_or_one_long_step() -> None:
    limits = {"silence_limit": 20.0, "busy_limit": 120.0}
    assert restart.hung(19, 119, **limits) is None
    assert "answered" in (restart.hung(21, 0, **limits) or "")
    assert "step" in (restart.hung(0, 121, **limits) or "")
