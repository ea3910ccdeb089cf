"""When a policy runs next: decided of its times and of how its last run ended; does no I/O and asks no clock."""

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta

from config.schedule import Scheduled
from server.policies.report import Run

_BACKOFF = (timedelta(minutes=1), timedelta(minutes=5), timedelta(minutes=15), timedelta(hours=1))


@dataclass(frozen=True)
class Due:
    """A run to come: from when on, and which try it is, more than 1 where it repeats one that failed."""

    at: datetime
    attempt: int = 1


def following(spec: Scheduled, since: datetime, last: Run | None, seed: str) -> Due | None:
    """The next run, due in the past where it was missed, once however many were. None for a policy that runs only when
    it is asked to.

    `since` is when the policy was first seen with these times, and `last` its last run that ended, whoever asked for
    it. A run that failed is tried again after a while, as often as `retries` says; then the next of its times counts.
    `seed` tells machines apart, whose jitter differs.
    """
    planned = _planned(spec, since if last is None else max(since, last.began), seed)
    if planned is None or last is None or last.ended is None or last.outcome == "done" or last.attempt > spec.retries:
        return None if planned is None else Due(planned)
    again = last.ended + _BACKOFF[min(last.attempt, len(_BACKOFF)) - 1]
    return Due(again, last.attempt + 1) if again < planned else Due(planned)


def _planned(spec: Scheduled, after: datetime, seed: str) -> datetime | None:
    """The first of its own times after `after`, with its jitter."""
    due = after + spec.every if spec.every is not None else spec.cron(after)
    return None if due is None else due + spec.spread * _share(f"{seed}:{due.isoformat()}")


def _share(text: str) -> float:
    """From 0 to 1, the same for the same text, so that looking twice moves nothing."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big") / 2.0**48
