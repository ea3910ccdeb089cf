"""When policies run: their times, missed runs, jitter, and tries after a failure."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from config.schedule import Scheduled
from server.policies.report import Outcome, Run
from server.policies.schedule import Due, following

SINCE = datetime(2027, 1, 1, 12, 0, tzinfo=UTC)


def ran(began: datetime, outcome: Outcome = "done", attempt: int = 1, took: timedelta = timedelta(minutes=2)) -> Run:
    return Run("backup", 1, began, began + took, outcome, attempt=attempt)


def due(spec: Scheduled, last: Run | None) -> Due | None:
    return following(spec, SINCE, last, "here")


def test_without_times_it_runs_only_when_asked() -> None:
    assert due(Scheduled(), None) is None
    assert due(Scheduled(), ran(SINCE, "failed")) is None


def test_cron_counts_from_when_it_was_first_seen_then_from_the_last_run() -> None:
    nightly = Scheduled(at="0 3 * * *", timezone="UTC")
    assert due(nightly, None) == Due(datetime(2027, 1, 2, 3, 0, tzinfo=UTC))
    assert due(nightly, ran(datetime(2027, 1, 5, 3, 0, tzinfo=UTC))) == Due(datetime(2027, 1, 6, 3, 0, tzinfo=UTC))
    by_hand = ran(datetime(2027, 1, 5, 2, 59, tzinfo=UTC))
    assert due(nightly, by_hand) == Due(datetime(2027, 1, 5, 3, 0, tzinfo=UTC))


def test_runs_that_were_missed_are_caught_up_once() -> None:
    nightly = Scheduled(at="0 3 * * *", timezone="UTC")
    long_ago = ran(datetime(2027, 1, 5, 3, 0, tzinfo=UTC))
    missed = due(nightly, long_ago)
    assert missed == Due(datetime(2027, 1, 6, 3, 0, tzinfo=UTC))
    caught_up = ran(datetime(2027, 2, 1, 17, 30, tzinfo=UTC))
    assert due(nightly, caught_up) == Due(datetime(2027, 2, 2, 3, 0, tzinfo=UTC))


def test_an_interval_counts_from_the_beginning_of_the_last_run() -> None:
    hourly = Scheduled(every=timedelta(hours=1))
    assert due(hourly, None) == Due(SINCE + timedelta(hours=1))
    assert due(hourly, ran(SINCE + timedelta(hours=5))) == Due(SINCE + timedelta(hours=6))


def test_times_are_of_a_zone_and_its_summer() -> None:
    berlin = Scheduled(at="30 2 * * *", timezone="Europe/Berlin")
    winter = following(berlin, datetime(2027, 1, 10, tzinfo=UTC), None, "here")
    summer = following(berlin, datetime(2027, 7, 10, tzinfo=UTC), None, "here")
    assert winter == Due(datetime(2027, 1, 10, 1, 30, tzinfo=UTC))
    assert summer == Due(datetime(2027, 7, 10, 0, 30, tzinfo=UTC))


@pytest.fixture
def new_york(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This machine is there, where clocks go forward on 14 March 2027 and back on 7 November."""
    with monkeypatch.context() as there:
        there.setenv("TZ", "America/New_York")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("new_york")
def test_without_a_zone_times_are_of_this_machine_and_its_summer() -> None:
    nightly, often = Scheduled(at="0 3 * * *"), Scheduled(at="*/20 * * * *")
    before = datetime(2027, 3, 14, 3, 0, tzinfo=UTC)  # 22:00 in winter, and at 3:00 it is summer
    assert nightly.cron(before) == datetime(2027, 3, 14, 7, 0, tzinfo=UTC)
    assert Scheduled(at="@monthly").cron(datetime(2027, 10, 9, tzinfo=UTC)) == datetime(2027, 11, 1, 4, 0, tzinfo=UTC)
    twice = datetime(2027, 11, 7, 5, 25, tzinfo=UTC)  # 1:25, for the first time
    assert often.cron(twice) == twice + timedelta(minutes=15)
    again = twice + timedelta(hours=1)
    assert often.cron(again) == again + timedelta(minutes=15), "and never in the past"
    assert often.cron(again + timedelta(minutes=20)) == datetime(2027, 11, 7, 7, 0, tzinfo=UTC)


@pytest.mark.parametrize("outcome", ["failed", "lost"])
def test_a_run_that_failed_is_tried_again_as_often_as_declared(outcome: Outcome) -> None:
    nightly = Scheduled(at="0 3 * * *", timezone="UTC", retries=2)
    began = datetime(2027, 1, 5, 3, 0, tzinfo=UTC)
    first = ran(began, outcome)
    assert first.ended is not None
    assert due(nightly, first) == Due(first.ended + timedelta(minutes=1), 2)
    second = ran(began + timedelta(minutes=3), outcome, attempt=2)
    assert second.ended is not None
    assert due(nightly, second) == Due(second.ended + timedelta(minutes=5), 3)
    third = ran(began + timedelta(minutes=10), outcome, attempt=3)
    assert due(nightly, third) == Due(datetime(2027, 1, 6, 3, 0, tzinfo=UTC))


def test_a_try_never_goes_past_the_next_time() -> None:
    often = Scheduled(every=timedelta(seconds=30))
    failed = ran(SINCE, "failed", took=timedelta(seconds=1))
    assert due(often, failed) == Due(SINCE + timedelta(seconds=30))


def test_jitter_is_the_same_for_the_same_run_and_another_elsewhere() -> None:
    spec = Scheduled(every=timedelta(hours=1), jitter=timedelta(minutes=10))
    places = {seed: following(spec, SINCE, None, seed) for seed in ("one", "two", "three")}
    assert places == {seed: following(spec, SINCE, None, seed) for seed in places}
    times = [found.at - SINCE - timedelta(hours=1) for found in places.values() if found is not None]
    assert len(set(times)) == 3 and all(timedelta() <= time < timedelta(minutes=10) for time in times)
