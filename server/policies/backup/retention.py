"""Which snapshots go and which packs with them: decided of names and times alone, done by whoever holds the place."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from server.policies.backup.snapshot import Snapshot


def outdated(made: Sequence[datetime], count: int | None, age: timedelta | None, now: datetime) -> list[int]:
    """The places of the snapshots that go, of those made at these times, oldest first.

    One that either rule keeps stays, the newest stays always, and without a rule all stay.
    """
    if count is None and age is None:
        return []
    newest = len(made) - 1
    by_count = len(made) if count is None else count
    return [
        place
        for place, moment in enumerate(made)
        if place != newest
        and not (count is not None and newest - place < by_count)
        and not (age is not None and now - moment <= age)
    ]


def unused(packs: Iterable[str], snapshots: Iterable[Snapshot]) -> list[str]:
    """The packs that no snapshot names."""
    used = {pack for snapshot in snapshots for pack in snapshot.packs}
    return sorted(set(packs) - used)
