"""The policy `backup`: each run is a process of its own, which computes and blocks beside the server."""

import asyncio
import pickle
import sys
from asyncio.subprocess import PIPE
from contextlib import suppress

import msgspec

from config import Recipe
from config.policy import BackupSpec
from server.errors import ServiceError, from_code
from server.policies.report import Report, Tell


class _Line(msgspec.Struct):
    told: str | None = None
    report: Report | None = None
    code: str | None = None
    message: str = ""


_lines = msgspec.json.Decoder(_Line)
_LIMIT = 2**20
"""Bytes of one line: a report lists what was left out."""


class BackupPolicy:
    """Copies models, knowledge and recipe to the place that the recipe says."""

    name = "backup"

    def __init__(self, recipe: Recipe, spec: BackupSpec) -> None:
        self.spec = spec
        self._recipe = recipe

    async def run(self, tell: Tell) -> Report:
        """Raises what the process tells; cancelling it ends the process."""
        command = (sys.executable, "-m", "server.policies.backup")
        process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, stderr=PIPE, limit=_LIMIT)
        try:
            assert process.stdin is not None and process.stdout is not None and process.stderr is not None
            noise = asyncio.create_task(process.stderr.read())
            process.stdin.write(pickle.dumps(self._recipe))
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
            raise ServiceError(f"The process that makes the backup ended with {await process.wait()}: {' '.join(last)}")
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
