"""Keys, limits and tools, read again while the server runs: when their files change, and on SIGHUP."""

import asyncio
import logging
import os
import signal
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from config import Recipe, RecipeError, all_keys, load
from config.key import Key
from config.watch import Watch
from server.api.auth import KeyRing
from server.runtime import Runtime

log = logging.getLogger(__name__)

_EVERY_S = 0.5
"""A change is acted on once it was seen twice: within a second."""

_LIVE = frozenset({"keys", "keys_file", "limits"})
_LIVE_LIMITS = frozenset({"requests_per_minute", "tokens_per_minute", "queue"})


class Reload:
    """What is in force of one recipe; `recipe` is the one that the server started with."""

    def __init__(self, recipe: Recipe, ring: KeyRing) -> None:
        """Raises RecipeError where the keys file is not sound."""
        self._started = recipe
        self._recipe = recipe
        self._ring = ring
        self._keys: Sequence[Key] = all_keys(recipe)
        self._watch = Watch(self._files)
        self._told: list[str] = []
        self._declare(recipe, self._keys)

    @asynccontextmanager
    async def watching(self, runtime: Runtime) -> AsyncIterator[None]:
        """Follow the files while the block lasts."""
        loop = asyncio.get_running_loop()
        asked = asyncio.Event()
        had_terminal = _has_terminal()

        def hung_up() -> None:
            """A terminal that was closed says so with the same signal; then the server ends, as any program there."""
            if had_terminal and not _has_terminal():
                signal.raise_signal(signal.SIGTERM)
            else:
                log.info("SIGHUP: reading %s again", self._recipe.path)
                asked.set()

        # Only the main thread may; elsewhere, as in a test, there is the watch alone.
        signals = threading.current_thread() is threading.main_thread() and hasattr(signal, "SIGHUP")
        if signals:
            loop.add_signal_handler(signal.SIGHUP, hung_up)
        task = asyncio.create_task(self._follow(runtime, asked))
        try:
            yield
        finally:
            if signals:
                loop.remove_signal_handler(signal.SIGHUP)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _follow(self, runtime: Runtime, asked: asyncio.Event) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_EVERY_S):
                    await asked.wait()
            if await asyncio.to_thread(self._watch.changed, self._files) or asked.is_set():
                asked.clear()
                await self._again(runtime)

    @property
    def _files(self) -> list[Path]:
        named = self._recipe.server.keys_file
        return [self._recipe.path, *self._recipe.origin.secrets, *([] if named is None else [named])]

    async def _again(self, runtime: Runtime) -> None:
        try:
            recipe, keys = await asyncio.to_thread(self._read)
        except RecipeError as error:
            told = "%s changed and is not sound; keys, limits and tools stay as they were:\n%s"
            log.error(told, self._recipe.path, error)
            return
        self._recipe = recipe
        self._declare(recipe, keys)
        for name, model in runtime.models.items():
            model.resize_queue(self._started.models[name].queue or recipe.server.limits.queue)
        need_restart = others(self._started, recipe)
        if set(recipe.tools) >= needed_tools(self._started):
            await runtime.tools.become(recipe.tools)
        else:  # an assistant in force has a tool that is gone
            need_restart = sorted([*need_restart, "tools"])
        if need_restart and need_restart != self._told:
            log.warning("%s: changed, and needs a restart: %s", recipe.path, ", ".join(need_restart))
        self._told = need_restart

    def _read(self) -> tuple[Recipe, tuple[Key, ...]]:
        origin = self._started.origin
        recipe = load(origin.file, overrides=origin.overrides)
        return recipe, all_keys(recipe)

    def _declare(self, recipe: Recipe, keys: Sequence[Key]) -> None:
        before, after = ({key.name: key for key in each} for each in (self._keys, keys))
        self._ring.declare(keys, recipe.server.limits, asks=recipe.server.asks_for_keys)
        self._keys = keys
        for word, names in (
            ("added", after.keys() - before.keys()),
            ("removed", before.keys() - after.keys()),
            ("changed", {name for name in after.keys() & before.keys() if after[name] != before[name]}),
        ):
            if names:
                log.info("keys %s: %s", word, ", ".join(sorted(names)))
        if before and not after:
            log.warning("no key is left; requests need one all the same until the server is started again")


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True


def needed_tools(recipe: Recipe) -> set[str]:
    """The tools that its assistants name."""
    return {name for assistant in recipe.assistants.values() for name in assistant.tools}


def others(old: Recipe, new: Recipe) -> list[str]:
    """The sections and keys that differ and are not taken over while the server runs."""
    fixed = [name for name in Recipe.model_fields if name not in ("server", "tools")]
    sections = [name for name in fixed if getattr(old, name) != getattr(new, name)]
    of_server = type(old.server).model_fields.keys() - _LIVE
    of_limits = type(old.server.limits).model_fields.keys() - _LIVE_LIMITS
    found = [f"server.{name}" for name in of_server if getattr(old.server, name) != getattr(new.server, name)]
    found += [
        f"server.limits.{name}"
        for name in of_limits
        if getattr(old.server.limits, name) != getattr(new.server.limits, name)
    ]
    return sorted(sections + found)
