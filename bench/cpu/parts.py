"""The parts of the cpu bench, every row of what the engine must hold, in one run.

A part that cannot run is told at the end, and the others are measured all the same.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.cpu import bare, compiled, resident, share, wire
from bench.cpu.servers import Llama
from bench.cpu.setup import FULL, QUICK, Setup, tell
from bench.side import ROOT
from bench.table import CannotRun, Figure, report
from server.models import native, openvino_kernel

PARTS: dict[str, Callable[[Setup], list[Figure]]] = {
    "http": wire.http,
    "bare": bare.bare,
    "kernel": compiled.compiled,
    "share": share.share,
    "prefix": wire.prefix,
    "front": wire.front,
    "streams": wire.streams,
    "long": wire.long,
    "memory": resident.memory,
}

_BUSY = 0.5
"""Load average above which the machine is not quiet."""


def run(quick: bool, only: str | None, llama_server: str | None) -> int:
    """1 where a bar falls short, 2 where a part could not run. Raises CannotRun for a part there is not."""
    chosen = _chosen(only)
    llama = Llama.found(llama_server)
    tell(f"llama.cpp's server is {llama.name}")
    built = openvino_kernel.found(native.home(ROOT / "data")) is not None
    tell(f"hearth computes {'by the kernel built here' if built else 'without a kernel built here'}")
    if (load := os.getloadavg()[0]) > _BUSY:
        tell(f"this machine has other work (load {load:.1f}), which costs some sides more than others: no verdict")
    figures: list[Figure] = []
    faults: list[str] = []
    with TemporaryDirectory() as folder:
        setup = Setup(Path(folder), QUICK if quick else FULL, llama)
        try:
            for part in chosen:
                try:
                    measured = PARTS[part](setup)
                except CannotRun as error:
                    faults.append(f"{part}: {error}")
                    continue
                for figure in measured:
                    tell("  ".join(figure.row()))
                figures += measured
        finally:  # what was measured is told even where a part breaks
            code = report(figures)
    for fault in faults:
        print(fault, file=sys.stderr)
    return 2 if faults else code


def _chosen(only: str | None) -> list[str]:
    if only is None:
        return list(PARTS)
    chosen = only.split(",")
    if unknown := [part for part in chosen if part not in PARTS]:
        raise CannotRun(f"--only: {unknown[0]!r} is not one of {', '.join(PARTS)}")
    return chosen
