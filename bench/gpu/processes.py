"""Runs one measurement in a process group of its own, within its time."""

import os
import signal
import subprocess
from pathlib import Path


class MeasurementFailed(RuntimeError):
    """One sentence, or the last lines of the process that measured."""


def run(command: list[str], most: float, left: float) -> str:
    """What the process printed. Raises MeasurementFailed with its last lines, or when its `most` seconds or the `left`
    ones of the step are over; nothing of it runs on then."""
    if left <= 1:
        raise MeasurementFailed("the time of this step was over")
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
        start_new_session=True,
    )
    try:
        said, complained = process.communicate(timeout=min(left, most))
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        over = "the time of this step was over" if left < most else f"it took more than {most:.0f} s"
        raise MeasurementFailed(over) from None
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise
    if process.returncode:
        raise MeasurementFailed("\n".join([*said.splitlines()[-3:], *complained.splitlines()[-12:]]))
    return said
