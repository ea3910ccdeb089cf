"""The cpu bench of the kernel that `hearth engines build openvino` makes: the paged engine with it and without it."""

from bench.cpu.bare import engine, in_turn
from bench.cpu.prompts import Prompts
from bench.cpu.setup import Setup, model, tell
from bench.side import ROOT
from bench.table import CannotRun, Figure
from server.models import native, openvino_kernel

_CONTEXT = 1024
_MODELS = (("0.6b", "q4_0"), ("0.6b", "q8_0"), ("30m", "q8_0"))


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
        return in_turn((built, plain), prompts, setup, f"{shape} {quant} by the kernel", "without it")
