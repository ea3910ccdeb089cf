"""What a minute holds, with a clock of the test's own."""

import pytest

from config.key import KeyLimits
from config.server import Limits
from server.api.limits import RATE_HEADERS, Account, Bucket, written
from server.errors import RateLimitExceeded


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def account(clock: Clock, requests: int | None = None, tokens: int | None = None) -> Account:
    limits = KeyLimits(requests_per_minute=requests, tokens_per_minute=tokens)
    return Account("ide", limits, Limits(), clock=clock)


def test_a_bucket_fills_evenly_and_never_over() -> None:
    bucket = Bucket(60, 0)
    bucket.take(60, 0)
    assert [bucket.left(now) for now in (0, 1, 30, 60, 600)] == [0, 1, 30, 60, 60]
    assert (bucket.wait(1, 0), bucket.wait(10, 0), bucket.wait(10, 5), bucket.wait(10, 10)) == (1, 10, 5, 0)


def test_what_is_owed_is_paid_before_more_is_given() -> None:
    bucket = Bucket(60, 0)
    bucket.take(90, 0)
    assert (bucket.left(0), bucket.wait(1, 0)) == (-30, 31)


def test_more_than_the_limit_waits_for_the_whole_of_it() -> None:
    bucket = Bucket(60, 0)
    assert bucket.wait(1000, 0) == 0
    bucket.take(30, 0)
    assert bucket.wait(1000, 0) == 30


def test_another_limit_keeps_what_was_used() -> None:
    bucket = Bucket(60, 0)
    bucket.take(50, 0)
    bucket.resize(100, 0)
    assert bucket.left(0) == 50
    bucket.resize(10, 0)
    assert bucket.left(0) == -40


def test_requests_are_refused_until_one_more_is_there(clock: Clock) -> None:
    caller = account(clock, requests=2)
    caller.admit()
    caller.admit()
    with pytest.raises(RateLimitExceeded, match="the key `ide`: 2 requests a minute, 0 left") as refused:
        caller.admit()
    assert refused.value.retry_after == pytest.approx(30)
    assert refused.value.limits["x-ratelimit-remaining-requests"] == "0"
    clock.now += refused.value.retry_after or 0
    caller.admit()


def test_tokens_are_reserved_by_a_guess_and_settled_by_what_was_used(clock: Clock) -> None:
    caller = account(clock, tokens=100)
    caller.reserve(40)
    assert caller.told()["x-ratelimit-remaining-tokens"] == "60"
    caller.settle(40, 110)
    assert caller.told()["x-ratelimit-remaining-tokens"] == "0"
    with pytest.raises(RateLimitExceeded) as refused:
        caller.admit()  # told before a body is read
    assert refused.value.retry_after == pytest.approx(11 * 0.6)
    caller.settle(110, 0)  # as a request that came to nothing
    caller.reserve(100)


def test_a_refused_request_costs_nothing(clock: Clock) -> None:
    caller = account(clock, requests=5, tokens=10)
    caller.reserve(10)
    before = caller.told()
    for refuse in (caller.admit, lambda: caller.reserve(1)):
        with pytest.raises(RateLimitExceeded):
            refuse()
    assert caller.told() == before


def test_a_key_has_its_own_limits_and_else_those_of_all(clock: Clock) -> None:
    of_all = Limits(requests_per_minute=10, tokens_per_minute=1000)
    caller = Account("ide", KeyLimits(requests_per_minute=20), of_all, clock=clock)
    told = caller.told()
    assert (told["x-ratelimit-limit-requests"], told["x-ratelimit-limit-tokens"]) == ("20", "1000")
    assert sorted(told) == sorted(RATE_HEADERS)
    caller.set(KeyLimits(), Limits())
    assert not caller.limited and caller.told() == {}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0ms"), (0.0121, "13ms"), (1, "1s"), (59.9996, "1m0s"), (61.5, "1m1.5s"), (3600, "60m0s"), (12.25, "12.25s")],
)
def test_times_are_written_as_openai_writes_them(seconds: float, text: str) -> None:
    assert written(seconds) == text
