"""Two tools that language models need, since they know neither the time nor how to count days."""

import os
from datetime import date, datetime
from typing import Literal
from zoneinfo import ZoneInfo


def now(zone: str | None = None) -> str:
    """Tell the date and the time.

    Args:
        zone: A time zone such as Asia/Tokyo; the user's own unless said.

    Returns:
        The day of the week, the date, the time and the zone.
    """
    place = ZoneInfo(zone or os.environ.get("CLOCK_ZONE", "UTC"))
    return datetime.now(place).strftime("%A, %Y-%m-%d %H:%M:%S %Z")


async def days_between(start: date, end: date, unit: Literal["days", "weeks"] = "days") -> dict[str, float]:
    """Count the days between two dates.

    Args:
        start: The first date.
        end: The second date; an earlier one gives a negative count.
        unit: What to count in.
    """
    days = (end - start).days
    return {unit: days if unit == "days" else days / 7}
