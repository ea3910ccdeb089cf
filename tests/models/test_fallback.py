"""When requests go to another model, as pure decisions."""

import pytest

from server.errors import (
    ContextLengthExceeded,
    HearthError,
    ModelCrashed,
    ModelUnavailable,
    Overloaded,
    RateLimitExceeded,
    UpstreamFault,
)
from server.models.fallback import Switch, after, crowded


@pytest.mark.parametrize(("most", "back"), [(1, 0), (2, 1), (3, 1), (8, 4)])
def test_over_at_the_limit_and_back_at_half_of_it(most: int, back: int) -> None:
    assert not crowded(most - 1, most, False)
    assert crowded(most, most, False)
    assert crowded(back + 1, most, True)
    assert not crowded(back, most, True)


def test_a_switch_remembers_that_others_took_over() -> None:
    switch = Switch(4)
    told = [switch.before("ready", True, waiting) for waiting in (3, 4, 3, 2, 3, 4)]
    assert told == [None, "queue", "queue", None, None, "queue"]


def test_without_a_limit_the_queue_decides_nothing() -> None:
    assert Switch(None).before("ready", True, 10**6) is None


@pytest.mark.parametrize(
    ("state", "available", "reason"),
    [
        ("ready", True, None),
        ("loading", False, "loading"),
        ("loading", True, "loading"),  # unloaded, and somebody has asked for it
        ("stopped", True, None),  # unloaded: asking is what loads it
        ("stopped", False, "down"),
        ("failed", False, "down"),
        ("failed", True, "down"),  # on a server that was just found away
    ],
)
def test_what_is_not_ready_is_not_asked(state: str, available: bool, reason: str | None) -> None:
    assert Switch(3).before(state, available, 0) == reason


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Overloaded("full"), "queue"),
        (ModelUnavailable("not yet"), "loading"),
        (ModelCrashed("gone"), "down"),
        (UpstreamFault("slow down", status=429), "queue"),
        (UpstreamFault("broken", status=503), "down"),
        (UpstreamFault("wrong", status=400), None),
        (UpstreamFault("whose key?", status=401), None),
        (ContextLengthExceeded("long"), None),
        (RateLimitExceeded("of the key", retry_after=1), None),
    ],
)
def test_which_faults_are_worth_another_try(fault: HearthError, reason: str | None) -> None:
    assert after(fault, "loading") == reason


def test_a_fault_of_a_model_that_is_not_loading_is_one_of_a_model_that_is_down() -> None:
    assert after(ModelUnavailable("failed"), "failed") == "down"
