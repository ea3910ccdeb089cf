"""What every Python client's script begins with: where the server is, and the cases it runs, told one line each.

Runs in the clients' environments, so it imports nothing but the standard library and knows no client.
"""

import asyncio
import inspect
import json
import os
import time
import traceback
import urllib.request
from collections.abc import Callable
from typing import Any

SERVER = os.environ["HEARTH_URL"]
URL = f"{SERVER}/v1"
KEY = os.environ["HEARTH_KEY"]
TEXT = os.environ["HEARTH_TEXT"]
"""What the model `automaton` always says."""

HELLO: list[Any] = [{"role": "user", "content": "Hello"}]
LONG = "word " * 80_000
"""More than any model of the recipe reads."""
TRIP = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 8},
        "days": {"type": "integer", "minimum": 0, "maximum": 99},
    },
    "required": ["city", "days"],
    "additionalProperties": False,
}
"""Bounded, because the model `random` ends nothing by itself."""

_PATIENCE = 20.0
_cases: list[Callable[[], Any]] = []


def case(check: Callable[[], Any]) -> Callable[[], Any]:
    """Makes a function a case. Its name is the case's; it may be async; it fails by raising."""
    _cases.append(check)
    return check


def run() -> None:
    """Every case, the others too where one fails: a line {"case", "ok", "detail"} each."""
    for check in _cases:
        try:
            found = check()
            if inspect.isawaitable(found):
                asyncio.run(_awaited(found))
            fault = None
        except Exception:  # noqa: BLE001  # a client may raise anything, and the next case is run all the same
            fault = traceback.format_exc(limit=-4)
        print(json.dumps({"case": check.__name__, "ok": fault is None, "detail": fault or ""}), flush=True)


async def _awaited(found: Any) -> None:
    await found


def trip(arguments: str | dict[str, Any]) -> None:
    """Raises AssertionError unless `arguments`, as JSON or read already, fit TRIP."""
    found = json.loads(arguments) if isinstance(arguments, str) else arguments
    assert isinstance(found, dict) and set(found) == {"city", "days"}, found
    assert isinstance(found["city"], str) and len(found["city"]) <= 8, found
    assert isinstance(found["days"], int) and 0 <= found["days"] <= 99, found


def get(path: str) -> Any:
    """The JSON of a route of the server, without any client."""
    asked = urllib.request.Request(SERVER + path, headers={"authorization": f"Bearer {KEY}"})
    with urllib.request.urlopen(asked, timeout=30) as reply:
        return json.load(reply)


def post(path: str, body: dict[str, Any]) -> Any:
    """As `get`, with a body."""
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
    asked = urllib.request.Request(SERVER + path, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(asked, timeout=60) as reply:
        return json.load(reply)


def freed(model: str) -> None:
    """Raises AssertionError unless the model soon has nothing to do."""
    until = time.monotonic() + _PATIENCE
    while get("/health")["models"][model]["in_flight"]:
        assert time.monotonic() < until, f"{model} is still busy"
        time.sleep(0.05)  # another process' state, which has nothing to wait on
