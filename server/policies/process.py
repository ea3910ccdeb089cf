"""A run in a process of its own, which computes and blocks beside the server, and ends with whoever asked for it.

What it works on goes in pickled, for both ends are the same code; lines of JSON come out.
"""

import asyncio
import json
import pickle
import sys
import time
from asyncio.subprocess import PIPE
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec

from server.errors import HearthError, ServiceError, from_code
from server.policies.report import Report, Tell


class _Line(msgspec.Struct):
    told: str | None = None
    report: Report | None = None
    code: str | None = None
    message: str = ""


_lines = msgspec.json.Decoder(_Line)
_LIMIT = 2**20
"""Bytes of one line: a report lists what was left out."""
_EVERY_S = 0.2


async def run_apart(module: str, work: object, tell: Tell) -> Report:
    """What `python -m MODULE` reports of `work`. Raises what it raised; cancelling this ends the process."""
    command = (sys.executable, "-m", module)
    process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, stderr=PIPE, limit=_LIMIT)
    try:
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        noise = asyncio.create_task(process.stderr.read())
        process.stdin.write(pickle.dumps(work))
        process.stdin.close()
        async for text in process.stdout:
            line = _lines.decode(text)
            if line.told is not None:
                tell(line.told)
            if line.report is not None:
                await process.wait()
                return line.report
            if line.code is not None:
                raise from_code(line.code, line.message)
        last = (await noise).decode("utf-8", "replace").strip().splitlines()[-1:]
        raise ServiceError(f"The process {module} ended with {await process.wait()}: {' '.join(last)}")
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def serve(run: Callable[[Any, Tell], Report]) -> None:
    """The other end: run what comes in on the standard input, and tell how it went."""
    last = 0.0

    def tell(sentence: str) -> None:
        nonlocal last
        if time.monotonic() - last >= _EVERY_S:
            last = time.monotonic()
            _say({"told": sentence})

    try:
        report = run(pickle.load(sys.stdin.buffer), tell)
    except HearthError as fault:
        _say({"code": fault.code, "message": fault.message})
        sys.exit(1)
    _say({"report": msgspec.to_builtins(report)})


def _say(what: object) -> None:
    print(json.dumps(what), flush=True)
