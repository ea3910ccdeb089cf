"""How much one caller may use in a minute: requests and tokens, counted, told in headers, refused with 429."""

import math
import time
from collections.abc import Callable
from datetime import timedelta

from config.key import KeyLimits
from config.server import Limits
from server.errors import NotAuthenticated, RateLimitExceeded
from server.models.caller import Caller

_MINUTE = 60.0

RATE_HEADERS = [
    f"x-ratelimit-{fact}-{what}" for what in ("requests", "tokens") for fact in ("limit", "remaining", "reset")
]
"""OpenAI's headers for what `Account.told` tells."""


class Bucket:
    """What is left of `limit` a minute. It fills evenly, to one minute's worth; pure, as times are given in seconds.

    It may go below nothing: a request is let in by a guess, and pays what it used.
    """

    __slots__ = ("_at", "_left", "limit")

    def __init__(self, limit: int, now: float) -> None:
        self.limit = limit
        self._left = float(limit)
        self._at = now

    def left(self, now: float) -> float:
        return min(self.limit, self._left + (now - self._at) * self.limit / _MINUTE)

    def take(self, amount: float, now: float) -> None:
        """Whatever is left; a negative amount is given back."""
        self._left = self.left(now) - amount
        self._at = now

    def wait(self, amount: float, now: float) -> float:
        """Seconds until `amount` is there; of more than the whole limit, until the limit is."""
        return max(0.0, (min(amount, self.limit) - self.left(now)) * _MINUTE / self.limit)

    def resize(self, limit: int, now: float) -> None:
        """Another limit from now on; what has been used stays used."""
        used = self.limit - self.left(now)
        self.limit, self._left, self._at = limit, limit - used, now


class Account(Caller):
    """A caller with limits: one key's, or those of all together where no key is declared."""

    def __init__(
        self, name: str, limits: KeyLimits, of_all: Limits, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(name)
        self._clock = clock
        self._requests: Bucket | None = None
        self._tokens: Bucket | None = None
        self.body: int | None = None
        self.revoked = False
        self.scopes: frozenset[str] | None = None
        """What its key opens; None where nothing asks for a key."""
        self.set(limits, of_all)

    def set(self, limits: KeyLimits, of_all: Limits) -> None:
        """The limits from now on: the key's own, else those that hold for all."""
        self._requests = self._changed(self._requests, limits.requests_per_minute or of_all.requests_per_minute)
        self._tokens = self._changed(self._tokens, limits.tokens_per_minute or of_all.tokens_per_minute)
        self.queue = limits.queue
        self.body = limits.body

    def _changed(self, bucket: Bucket | None, limit: int | None) -> Bucket | None:
        if limit is None:
            return None
        now = self._clock()
        if bucket is None:
            return Bucket(limit, now)
        bucket.resize(limit, now)
        return bucket

    @property
    def limited(self) -> bool:
        return self._requests is not None or self._tokens is not None

    def admit(self) -> None:
        """Count one request. Raises RateLimitExceeded where requests or tokens are used up.

        Raises NotAuthenticated where the key was taken away: of a connection that was open then.
        """
        if self.revoked:
            raise NotAuthenticated(f"The key `{self.name}` is not one of this server's keys any more.")
        now = self._clock()
        self._check(self._tokens, "tokens", 1, now)
        self._check(self._requests, "requests", 1, now)
        if self._requests is not None:
            self._requests.take(1, now)

    def opens(self, scope: str) -> bool:
        return self.scopes is None or scope in self.scopes or "admin" in self.scopes

    def reserve(self, tokens: int) -> None:
        if self._tokens is not None:
            now = self._clock()
            self._check(self._tokens, "tokens", tokens, now)
            self._tokens.take(tokens, now)

    def settle(self, reserved: int, used: int) -> None:
        if self._tokens is not None:
            self._tokens.take(used - reserved, self._clock())

    def _check(self, bucket: Bucket | None, what: str, amount: float, now: float) -> None:
        if bucket is None or not (wait := bucket.wait(amount, now)):
            return
        whose = f"the key `{self.name}`" if self.name else "this server"
        raise RateLimitExceeded(
            f"Rate limit reached for {whose}: {bucket.limit} {what} a minute, {_whole(bucket, now)} left, "
            f"{amount:g} wanted. Try again in {written(wait)}.",
            retry_after=wait,
            limits=self.told(),
        )

    def told(self) -> dict[str, str]:
        """OpenAI's headers: each declared limit, what is left of it, and when all of it will be there again."""
        now = self._clock()
        told = {}
        for what, bucket in (("requests", self._requests), ("tokens", self._tokens)):
            if bucket is not None:
                told[f"x-ratelimit-limit-{what}"] = str(bucket.limit)
                told[f"x-ratelimit-remaining-{what}"] = str(_whole(bucket, now))
                told[f"x-ratelimit-reset-{what}"] = written(bucket.wait(bucket.limit, now))
        return told


def _whole(bucket: Bucket, now: float) -> int:
    return max(0, math.floor(bucket.left(now)))


def written(seconds: float) -> str:
    """A time as OpenAI writes it: 6m0s, 1.2s, 20ms; rounded up, so that whoever waits as long does not come early."""
    whole = timedelta(milliseconds=math.ceil(seconds * 1000))
    minutes, rest = divmod(whole, timedelta(minutes=1))
    if not minutes and rest < timedelta(seconds=1):
        return f"{rest // timedelta(milliseconds=1)}ms"
    return f"{f'{minutes}m' if minutes else ''}{rest.total_seconds():g}s"
