"""Runs one client's script against a server, and what came of its cases."""

import json
import os
import subprocess
from dataclasses import dataclass
from itertools import chain

from server.models.made.automaton import TEXT
from tests.clients.client import HERE, Client

_PATIENCE = 300.0
_TAIL = 3000
_FOREIGN = ("OPENAI_", "ANTHROPIC_", "AIDER_", "CODEX_", "LITELLM_")
"""Of these the user's shell may hold settings, which would change what the clients ask."""


@dataclass(frozen=True)
class Outcome:
    """`detail` is why a case failed; empty where it passed."""

    client: Client
    case: str
    ok: bool
    detail: str


def outcomes(client: Client, command: list[str], url: str, key: str) -> list[Outcome]:
    """What came of every case; and a failed one in the script's own name where it did not end well."""
    try:
        done = subprocess.run(
            command,
            cwd=HERE,
            env=_environment(url, key),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=False,
        )
        out, noise, code = done.stdout, done.stderr, done.returncode
    except subprocess.TimeoutExpired as error:
        out, noise, code = _text(error.stdout), f"not done after {_PATIENCE:.0f} s", -1
    told = [json.loads(line) for line in out.splitlines() if line.startswith('{"case"')]
    found = [Outcome(client, **each) for each in told]
    if code or not found:
        found.append(Outcome(client, f"the script ended with {code}", False, (out + noise)[-_TAIL:]))
    return found


def _environment(url: str, key: str) -> dict[str, str]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
    return ours | {
        "HEARTH_URL": url,
        "HEARTH_KEY": key,
        "HEARTH_TEXT": TEXT,
        "PYTHONPATH": str(HERE),
        "PYTHONDONTWRITEBYTECODE": "1",
        "NO_PROXY": "127.0.0.1,localhost",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # or it asks the network at its import
    }


def _text(output: bytes | str | None) -> str:
    return output.decode(errors="replace") if isinstance(output, bytes) else output or ""


def counted(found: list[Outcome]) -> tuple[int, int]:
    """How many passed and how many failed."""
    passed = sum(each.ok for each in found)
    return passed, len(found) - passed


def everything(results: dict[Client, list[Outcome]]) -> list[Outcome]:
    return list(chain.from_iterable(results.values()))
