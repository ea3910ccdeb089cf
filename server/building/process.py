"""A build in a process of its own: its progress in lines, its log in a file, its end after a limit."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections import deque
from contextlib import suppress
from pathlib import Path

from rich.console import Console

_LAST_LINES = 30
_STEP = re.compile(r"^\s*\[\s*(?:(?P<done>\d+)/(?P<of>\d+)|(?P<percent>\d+)%)\]")
_EVERY_PERCENT = 5


class BuildError(Exception):
    """The build ended without a package; the text says why and what to do."""


def run(
    engine: str, command: list[str], environment: dict[str, str] | None, limit_s: float, log: Path, out: Console
) -> None:
    """Until it ends, its progress in lines; None is the environment of this process.

    Raises BuildError where it fails or `limit_s` is over.
    """
    process = subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    late = threading.Event()

    def end() -> None:
        late.set()
        _end(process)

    timer = threading.Timer(limit_s, end)
    timer.start()
    try:
        last = _follow(engine, process, log, out)
        code = process.wait()
    finally:
        timer.cancel()
        _end(process)
        assert process.stdout is not None
        process.stdout.close()
    if late.is_set():
        raise BuildError(f"{engine}: not built after {limit_s:.0f} seconds, so it was given up; the log is {log}")
    if code != 0:
        raise BuildError("\n".join([*last, f"{engine}: the build failed; the whole log is {log}"]))


def _follow(engine: str, process: "subprocess.Popen[str]", log: Path, out: Console) -> deque[str]:
    """Write the log and tell how far it is; returns the last lines."""
    last: deque[str] = deque(maxlen=_LAST_LINES)
    told = -_EVERY_PERCENT
    assert process.stdout is not None
    with log.open("w", encoding="utf-8") as written:
        for line in process.stdout:
            written.write(line)
            if line.strip():
                last.append(line.rstrip())
            found = _STEP.match(line)
            if found is None:
                continue
            done, of, percent = found.group("done", "of", "percent")
            percent = int(percent) if percent else 100 * int(done) // max(1, int(of))
            if percent >= told + _EVERY_PERCENT:
                told = percent
                out.print(f"{engine}: compiling, {percent} %", markup=False)
    return last


def _end(process: "subprocess.Popen[str]") -> None:
    """End it and all it started, which may go on without it: compilers do not end with pip."""
    if sys.platform == "win32":
        process.kill()
    else:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def remove(folder: Path) -> None:
    """A folder and all in it, where it is there."""
    if folder.exists():
        shutil.rmtree(folder)
