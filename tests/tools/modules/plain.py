"""Functions as somebody writes them who has never heard of Hearth."""

import asyncio
import os
import signal
import subprocess
import time
from pathlib import Path

COUNT = 0


def add(a: int, b: int = 2) -> int:
    """Add two whole numbers.

    Args:
        a: The first.
        b: The second.
    """
    print("adding", a, b)
    return a + b


async def later(text: str) -> str:
    """Say it a moment later."""
    await asyncio.sleep(0.001)
    return text


def wait(file: str) -> str:
    """Wait until a file is there, for ever if it never comes.

    Args:
        file: Its path.
    """
    while not Path(file).exists():
        time.sleep(0.005)
    return "it is there"


def meet(mine: str, other: str) -> str:
    """Write one file and wait for another: two calls end only where they run side by side."""
    Path(mine).touch()
    return wait(other)


def spawn(file: str) -> str:
    """Start a program that outlives this call, and hang."""
    child = subprocess.Popen(["sleep", "1000"])
    Path(file).write_text(str(child.pid), encoding="utf-8")
    return wait("/nowhere/at/all")


def eat(size: int) -> int:
    """Take memory."""
    return len(bytearray(size))


def crash() -> None:
    """End badly."""
    os.kill(os.getpid(), signal.SIGSEGV)


def leave() -> None:
    """Leave the program."""
    raise SystemExit("so long")


def fail(what: str) -> None:
    """Fail."""
    raise LookupError(what)


def environment() -> dict[str, str]:
    """Tell the environment."""
    return dict(os.environ)


def repeat(text: str, times: int) -> str:
    """Repeat a text."""
    return text * times


def count() -> int:
    """Count the calls of this process."""
    global COUNT
    COUNT += 1
    return COUNT


def thing() -> object:
    """Return what has no JSON form."""
    return object()


def silent(a: int) -> int:
    return a


def bare(a, b: int) -> int:  # type: ignore[no-untyped-def]
    """Has no hint at one of its parameters."""
    return int(a) + b
