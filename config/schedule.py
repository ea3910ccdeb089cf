"""When a policy runs: cron times or intervals, checked as the recipe is read; does no arithmetic of its own."""

from datetime import UTC, datetime, timedelta
from typing import Annotated
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError
from pydantic import AfterValidator, Field, PlainValidator, WithJsonSchema, model_validator

from config.section import Duration, Outside, Section, Whole, shown, text_of, wrong

_WORDS = {"@hourly": "0 * * * *", "@daily": "0 0 * * *", "@weekly": "0 0 * * 0", "@monthly": "0 0 1 * *"}


def _cron(value: object) -> str:
    """The five fields, which the library reads; a word of crontab's stands for its own five."""
    text = text_of(value).strip()
    if text in _WORDS:
        return text
    plain = "this value" if isinstance(value, Outside) else shown(text)
    try:
        # A date that never comes, such as the 30th of February, is found by looking for the first one.
        next(CronSim(text, datetime(2024, 1, 1, tzinfo=UTC)))
    except (CronSimError, StopIteration):
        guess = next((word for word in _WORDS if word.removeprefix("@") == text.lower()), None)
        raise wrong(
            f'{plain} is not a cron time such as "0 3 * * *" (minute, hour, day, month, weekday)', guess
        ) from None
    return text


Cron = Annotated[
    str, PlainValidator(_cron), WithJsonSchema({"type": "string", "examples": ["0 3 * * *", *_WORDS], "minLength": 1})
]
"""When, in the five fields of crontab: minute, hour, day of the month, month, weekday."""


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise wrong(f"{shown(name)} is not a time zone such as Europe/Berlin or UTC") from None
    return name


class Scheduled(Section):
    """The keys that every policy has. Without `at` and `every` it runs only when it is asked to."""

    at: Cron | None = Field(default=None, description='When it runs, as cron writes it: "0 3 * * *" is 3:00 every day.')
    every: Duration | None = Field(
        default=None, description="Instead of `at`: how long after a run the next one begins."
    )
    timezone: Annotated[str, AfterValidator(_zone)] | None = Field(
        default=None, description="The time zone that `at` is written in; this machine's unless said."
    )
    jitter: Duration | None = Field(
        default=None,
        description="Each run begins up to this much later, so that many machines do not all begin at once.",
    )
    retries: Whole = Field(
        default=3, description="How often a run that failed is tried again, after 1, 5, 15 minutes and so on."
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> "Scheduled":
        if self.at is not None and self.every is not None:
            raise wrong("has `at` and `every`: one of both says when it runs")
        return self

    def cron(self, after: datetime) -> datetime | None:
        """The first moment of `at` after `after`, both in any time zone; None without `at`."""
        if self.at is None:
            return None
        times = _WORDS.get(self.at, self.at)
        if self.timezone is not None:
            return next(CronSim(times, after.astimezone(ZoneInfo(self.timezone)))).astimezone(UTC)
        # Moments without a zone are this machine's, each with the clock of its own day. An hour that comes twice in
        # autumn has each moment twice, and of these the first one after `after` counts.
        local = CronSim(times, after.astimezone().replace(tzinfo=None))
        moments = (moment.replace(fold=fold).astimezone(UTC) for moment in local for fold in (0, 1))
        return next(moment for moment in moments if moment > after)

    @property
    def spread(self) -> timedelta:
        return self.jitter or timedelta()
