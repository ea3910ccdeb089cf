"""The cpu bench of the kernel that `hearth engines build openvino` makes: the paged engine with it and without it."""

from bench.cpu.bare import Engine, decode, engine, prefill
from bench.cpu.prompts import Prompts
from bench.cpu.setup import FIRST_PROMPT, Setup, model, ratio, tell
from bench.side import ROOT
from bench.table import CannotRun, Figure
from server.models import native, openvino_kernel

_CONTEXT = 1024
_MODELS = (("0.6b", "q4_0"), ("0.6b", "q8_0"), ("30m", "q8_0"))
_STREAMS = (1, 4, 8)


def compiled(setup: Setup) -> list[Figure]:
    """Prefill, and 1, 4 and 8 streams, in turn. Raises CannotRun where it is not built."""
    if openvino_kernel.found(native.home(ROOT / "data")) is None:
        raise CannotRun("the kernel is not built here: hearth engines build openvino")
    return [figure for shape, quant in _MODELS for figure in _compiled(setup, shape, quant)]


def _compiled(setup: Setup, shape: str, quant: str) -> list[Figure]:
    tell(f"kernel, {shape} {quant}")
    file = model(shape, quant)
    prompts = Prompts(file)
    with engine(file, _CONTEXT) as built, engine(file, _CONTEXT, kernel=False) as plain:
        sides: tuple[Engine, Engine] = (built, plain)
        decode(sides, prompts, max(_STREAMS), 4)
        rounds = [
            (prefill(sides, prompts), *(decode(sides, prompts, count, setup.size.tokens) for count in _STREAMS))
            for _ in range(setup.size.rounds)
        ]
    whats = (f"prefill of {FIRST_PROMPT}", *(f"{count} stream{'s' * (count > 1)}" for count in _STREAMS))
    return [
        ratio(f"{shape} {quant} by the kernel, {what}", 1.0, "without it", rates)
        for what, rates in zip(whats, zip(*rounds, strict=True), strict=True)
    ]
