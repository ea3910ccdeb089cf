"""Runs the policies of one recipe at their times, one run of each at a time, and remembers how each ended."""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from server.errors import Conflict, HearthError, NotFound
from server.policies.history import History
from server.policies.report import Policy, Run
from server.policies.schedule import Due, following
from server.state import State
from server.telemetry import Reading

log = logging.getLogger(__name__)

_LOOK_S = 60.0
"""A clock that was set, or a machine that slept, is noticed after this long."""

_TIMES = ("at", "every", "timezone", "jitter")
"""The keys by which a policy is another one, whose times begin anew."""


@dataclass
class Kept:
    """One policy: its next run, the one that goes on with the last sentence it told, and the last that ended."""

    policy: Policy
    since: datetime
    last: Run | None
    due: Due | None = None
    running: "asyncio.Task[Run] | None" = None
    told: str | None = None


class Keeper:
    """The policies of one runtime. Make it with `keeping`; what runs then ends with it."""

    def __init__(self, history: History, seed: str) -> None:
        self._history = history
        self._seed = seed
        self._kept: dict[str, Kept] = {}
        self._changed = asyncio.Event()

    @classmethod
    @asynccontextmanager
    async def keeping(cls, policies: Iterable[Policy], state: State, seed: str) -> AsyncGenerator["Keeper", None]:
        """Run `policies` at their times until the block ends. `seed` tells this machine from others with the recipe."""
        async with cls.asked(policies, state, seed) as keeper:
            task = asyncio.create_task(keeper._keep())
            try:
                yield keeper
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    @classmethod
    @asynccontextmanager
    async def asked(cls, policies: Iterable[Policy], state: State, seed: str = "") -> AsyncGenerator["Keeper", None]:
        """As `keeping`, but nothing runs unless `run` is called."""
        keeper = cls(History(state), seed)
        with keeper._history.living():
            async with keeper._asked(policies):
                yield keeper

    @asynccontextmanager
    async def _asked(self, policies: Iterable[Policy]) -> AsyncGenerator[None, None]:
        for run in await self._history.lost():
            log.warning("policy %s: its run that began at %s was lost with the process", run.policy, run.began)
        for policy in policies:
            await self._add(policy)
        try:
            yield
        finally:
            ending = [kept.running for kept in self if kept.running is not None]
            for each in ending:
                each.cancel()
            await asyncio.gather(*ending, return_exceptions=True)

    def __iter__(self) -> Iterator[Kept]:
        return iter(self._kept.values())

    def of(self, name: str) -> Kept:
        """Raises NotFound with the names there are."""
        if name not in self._kept:
            there = ", ".join(self._kept) or "none"
            raise NotFound(f"The policy `{name[:200]}` is not declared. This server has: {there}.", param="policy")
        return self._kept[name]

    async def runs(self, name: str, most: int) -> list[Run]:
        """The last runs of a policy, newest first."""
        return await self._history.runs(self.of(name).policy.name, most)

    def gauge(self, what: str) -> list[Reading]:
        """One reading of each policy that has it: running, failing, last, next or figure."""
        return [reading for kept in self for reading in _readings(kept, what)]

    async def run(self, name: str) -> Run:
        """Run a policy now and wait for its end, which may be a failure. Raises Conflict while it runs already.

        Whoever waits may leave: the run goes on.
        """
        kept = self.of(name)
        if kept.running is not None:
            raise Conflict(f"The policy `{name}` is running: {kept.told or 'it has just begun'}.", param="policy")
        return await asyncio.shield(self._start(kept, 1))

    async def _add(self, policy: Policy) -> None:
        times = json.dumps(policy.spec.model_dump(mode="json", include=set(_TIMES)), sort_keys=True)
        since = await self._history.since(policy.name, times)
        last = next((run for run in await self._history.runs(policy.name, 1)), None)
        kept = self._kept[policy.name] = Kept(policy, since, last)
        self._plan(kept)

    def _plan(self, kept: Kept) -> None:
        kept.due = following(kept.policy.spec, kept.since, kept.last, f"{self._seed}:{kept.policy.name}")

    async def _keep(self) -> None:
        """Start what is due, and sleep until the next is or something has ended."""
        while True:
            self._changed.clear()
            now = datetime.now(UTC)
            waiting = [(kept, kept.due) for kept in self if kept.running is None and kept.due is not None]
            for kept, due in waiting:
                if due.at <= now:
                    self._start(kept, due.attempt)
            seconds = [(due.at - now).total_seconds() for kept, due in waiting if kept.running is None]
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, min([*seconds, _LOOK_S]))):
                    await self._changed.wait()

    def _start(self, kept: Kept, attempt: int) -> "asyncio.Task[Run]":
        kept.told = None
        kept.running = asyncio.create_task(self._run(kept, attempt), name=f"policy {kept.policy.name}")
        kept.running.add_done_callback(_unremembered)
        return kept.running

    async def _run(self, kept: Kept, attempt: int) -> Run:
        policy = kept.policy

        def tell(sentence: str) -> None:
            kept.told = sentence

        began = datetime.now(UTC)
        try:
            run = await self._history.begin(policy.name, attempt)
            log.info("policy %s: run %d begins", policy.name, run.number)
            try:
                report = await policy.run(tell)
            except HearthError as fault:
                kept.last = await self._history.end(run, fault.message)
                log.error("policy %s: run %d failed: %s", policy.name, run.number, fault.message)
            except Exception as fault:  # a bug in one policy may end neither the others nor the server
                kept.last = await self._history.end(run, f"{type(fault).__name__}: {fault}")
                log.exception("policy %s: run %d failed", policy.name, run.number)
            else:
                kept.last = await self._history.end(run, report)
                log.info("policy %s: run %d: %s", policy.name, run.number, report.summary)
                for detail in report.details:
                    log.info("policy %s: %s", policy.name, detail)
            return kept.last
        except HearthError as fault:
            # The database failed, not the policy. Without a last run it would be due again at once, for ever.
            now = datetime.now(UTC)
            kept.last = Run(policy.name, 0, began, now, "failed", error=fault.message, attempt=attempt)
            raise
        finally:
            kept.running = None
            self._plan(kept)
            self._changed.set()


def _readings(kept: Kept, what: str) -> Iterator[Reading]:
    mine = {"hearth.policy": kept.policy.name}
    last = kept.last if kept.last is not None and kept.last.ended is not None else None
    match what:
        case "running":
            yield float(kept.running is not None), mine
        case "failing":
            yield float(last is not None and last.outcome != "done"), mine
        case "next" if kept.due is not None:
            yield kept.due.at.timestamp(), mine
        case "last" if last is not None and last.ended is not None:
            yield last.ended.timestamp(), mine
        case "figure" if last is not None and last.report is not None:
            for name, value in last.report.figures.items():
                yield value, {**mine, "figure": name}


def _unremembered(task: "asyncio.Task[Run]") -> None:
    """What the database did to a run; the run's own faults are remembered with it."""
    if not task.cancelled() and (fault := task.exception()) is not None:
        log.error("%s: its run could not be remembered: %s", task.get_name(), fault)
