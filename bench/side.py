"""A process that measures one side of a bench: spoken to in lines of JSON, so that it shares nothing with the other."""

import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from bench.table import CannotRun

ROOT = Path(__file__).parents[1]


class Side:
    """`told` is the line it said when it was ready."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self.told = self._line().strip()

    def _line(self) -> str:
        assert self._process.stdout is not None
        if line := self._process.stdout.readline():
            return line
        raise CannotRun(f"{self._process.args!r} ended; what it said is above")

    def ask(self, question: object) -> Any:
        """What it answers, as JSON has it."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it ended; reading says so
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
        return json.loads(self._line())


@contextmanager
def side(command: Sequence[str]) -> Iterator[Side]:
    """`command` run in the repository until the block ends."""
    told = os.environ | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=told, cwd=ROOT) as process:
        try:
            yield Side(process)
        finally:
            process.kill()
