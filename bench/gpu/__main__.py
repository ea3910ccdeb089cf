"""`scripts/gpu-check 1|2|3|all`: three steps, each under ten minutes, each going on from what the one before left.

Exit code 0 where every bar was met, 1 where one was not, 2 where this machine lacks something the check needs.
"""

import argparse
import sys
import time
from pathlib import Path

from rich.console import Console

from bench.gpu.checks import Check
from bench.gpu.machine import lacking
from bench.gpu.report import FILE, Report

_STEPS = (1, 2, 3)


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/gpu-check", description=__doc__)
    parser.add_argument("step", choices=["1", "2", "3", "all"], help="1 builds and compares, 2 is speed, 3 the server")
    parser.add_argument("--out", type=Path, default=Path("gpu-check"), help="where models and figures go")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cpu is a dry run on small models")
    told = parser.parse_args()
    out, err = Console(highlight=False), Console(stderr=True, highlight=False, soft_wrap=True)
    if told.device == "cuda" and (missing := lacking()) is not None:
        err.print(f"gpu-check: {missing}", markup=False)
        return 2
    steps = list(_STEPS) if told.step == "all" else [int(told.step)]
    if steps[0] > 1 and not Report.read(told.out).done(1):
        err.print(f"gpu-check: step {steps[0]} goes on from step 1, and {told.out / FILE} has none of it", markup=False)
        return 2
    for step in steps:
        check = Check(told.out.resolve(), told.device, err)
        check.report.begin(step)
        started = time.monotonic()
        check.step(step)
        err.print(f"step {step}: {time.monotonic() - started:.0f} s", markup=False)
    report = Report.read(told.out)
    report.show(out)
    out.print(f"{told.out / FILE}", markup=False)
    failed = report.failed()
    for figure in failed:
        err.print(f"{figure.name}: {figure.missed or 'the bar was not met'}", markup=False)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
