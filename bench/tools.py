"""What a round of tools costs beyond the tool and the model: real workers, and clocks around both.

A turn of two rounds: the model is made to call a function, reads what it brought, and answers.
"""

import time
from collections.abc import AsyncGenerator, Collection, Mapping
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from typing import Any, cast

import uvloop

from bench.table import Figure, report
from config import load
from server.chat import Asked, ToolDone, turn
from server.models.dialect import Tools
from server.models.engine import Event, Generate, Message
from server.models.model import Model
from server.runtime import Runtime, Target
from server.tools.result import Result
from server.tools.tool import Tool
from server.tools.toolbox import Toolbox

_MILLISECONDS = 1e3
_ROUNDS = 2
"""Of a turn; in each a prompt is rendered and an answer read, which counts as the loop's."""
_RECIPE = """\
version: 1
models:
  automaton: {engine: openvino, source: "made:automaton", context: 2048}
tools:
  add: {python: "adding:add"}
assistants:
  clerk: {model: automaton, tools: [add]}
"""
_CODE = '''\
def add(a: int = 1, b: int = 2) -> int:
    """Adds two numbers."""
    return a + b
'''


class _Model:
    """A model with a clock that runs while it is waited for."""

    def __init__(self, model: Model) -> None:
        self.spent = 0.0
        self.card = model.card
        self.dialect = model.dialect
        self._model = model

    async def generate(self, request: Generate) -> AsyncGenerator[list[Event], None]:
        async with aclosing(self._model.generate(request)) as events:
            while True:
                started = time.perf_counter()
                try:
                    batch = await anext(events)
                except StopAsyncIteration:
                    return
                finally:
                    self.spent += time.perf_counter() - started
                yield batch


class _Tools:
    """The tools with such a clock; that they are told to the model is the loop's."""

    def __init__(self, tools: Toolbox) -> None:
        self.spent = 0.0
        self._tools = tools

    async def tools(self, names: Collection[str]) -> list[Tool]:
        return await self._tools.tools(names)

    async def call(self, name: str, arguments: Mapping[str, Any] | str, *, among: Collection[str]) -> Result:
        started = time.perf_counter()
        try:
            return await self._tools.call(name, arguments, among=among)
        finally:
            self.spent += time.perf_counter() - started


def bench(turns: int) -> int:
    with TemporaryDirectory() as folder:
        (Path(folder) / "adding.py").write_text(_CODE, encoding="utf-8")
        recipe = Path(folder) / "tools.yaml"
        recipe.write_text(_RECIPE, encoding="utf-8")
        found = uvloop.run(_measured(recipe, turns))
    beyond, model, tool = (sorted(row) for row in zip(*found, strict=True))
    told = f"of {turns} turns; the model {median(model):.1f} ms, the tool {median(tool):.1f} ms"
    return report(
        [
            Figure("a round of tools, beyond tool and model", median(beyond), "ms", 2, peer=told, digits=2),
            Figure("the same, 95th percentile", quantiles(beyond, n=20)[-1], "ms", digits=2),
        ]
    )


async def _measured(recipe: Path, turns: int) -> list[tuple[float, float, float]]:
    """Milliseconds of each turn: of the loop in one round, of the model in both, of the tool."""
    async with Runtime.build(load(recipe)) as runtime:
        target = runtime.target("clerk")
        await target.model.ready()
        await _one(runtime, target)
        return [await _one(runtime, target) for _ in range(turns)]


async def _one(runtime: Runtime, target: Target) -> tuple[float, float, float]:
    box = runtime.tools
    model, tools = _Model(cast(Model, target.model)), _Tools(box)
    asked = Asked([Message("user", "What is one and two?")], tools=Tools([], forced=True, many=False), only="add")
    runtime.tools = cast(Toolbox, tools)
    started = time.perf_counter()
    runs = []
    try:
        async with aclosing(turn(runtime, replace(target, model=cast(Model, model)), asked)) as steps:
            async for step in steps:
                runs += [run for part in step for run in part.runs] if isinstance(step, list) else []
    finally:
        runtime.tools = box
    whole = time.perf_counter() - started
    assert any(isinstance(run, ToolDone) and run.output for run in runs), "the tool was not called"
    beyond = (whole - model.spent - tools.spent) / _ROUNDS
    return beyond * _MILLISECONDS, model.spent * _MILLISECONDS, tools.spent * _MILLISECONDS
