"""What a worker holds in memory with its cache filled, beside what `hearth check` predicted."""

from pathlib import Path

import uvloop

from bench.cpu.client import single
from bench.cpu.memory import resident, worker
from bench.cpu.prompts import Prompts
from bench.cpu.servers import RECIPE, served
from bench.cpu.setup import Setup, model, tell
from bench.table import CannotRun, Figure
from config import load

_CONTEXT = 2048
_ANSWER = 16
_MODELS = (("0.6b", "q8_0"), ("0.6b", "q4_0"), ("30m", "q8_0"))


def memory(setup: Setup) -> list[Figure]:
    """For each model, after prompts that fill one context, which is all that is kept."""
    return [_memory(setup, shape, quant) for shape, quant in _MODELS]


def _memory(setup: Setup, shape: str, quant: str) -> Figure:
    tell(f"memory, {shape} {quant}")
    file, folder = model(shape, quant), setup.folder / f"memory-{shape}-{quant}"
    prompts = Prompts(file)
    with served(folder, file, context=_CONTEXT, cache_tokens=_CONTEXT) as ours:
        predicted = _predicted(folder / RECIPE)
        # One prompt of almost the whole context, then short ones, which take the pages it left.
        texts = [prompts.unique(size).text for size in (_CONTEXT - 2 * _ANSWER, 100, 100, 100, 100)]
        for text in texts:
            uvloop.run(single(ours.port, text, _ANSWER))
        held = resident(worker(ours.pid))
    off = abs(held.total / predicted - 1) * 100
    told = (
        f"held {held.total / 1e6:.0f} MB ({held.mapped / 1e6:.0f} of it mapped files; {held.most / 1e6:.0f} at most), "
        f"predicted {predicted / 1e6:.0f}"
    )
    return Figure(f"{shape} {quant}, memory beside its prediction", off, "%", 10, peer=told)


def _predicted(path: Path) -> int:
    """Bytes, as `hearth check` says of the recipe at `path`."""
    from server.models.fit import plans

    [plan] = plans(load(path))
    if plan.memory is None:
        raise CannotRun(f"hearth check predicts nothing: {plan.fault}")
    return plan.memory.total
