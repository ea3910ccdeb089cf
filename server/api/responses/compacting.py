"""A conversation made short: what the user said stays, the rest becomes a summary that the model writes."""

import time
from contextlib import aclosing
from secrets import token_hex

import msgspec

from server import chat
from server.api.responses.answering import Before, conversation, usage
from server.api.responses.asked import named_here, wanted
from server.api.responses.items import Json, fresh, sealed
from server.api.responses.kept import Kept
from server.api.responses.wire import Compact, Compacted, CompactionItem, CreateResponse
from server.api.turns import Count, added, admit
from server.models.engine import Message
from server.runtime import Runtime

_LONGEST = 2048
"""Tokens of a summary."""

_ASKED = (
    "Write a summary of this conversation for your own later use: you will see it instead of the conversation. Keep "
    "goals, decisions, names, numbers, what tools told, and what is still open. Write nothing but the summary."
)


async def compact(runtime: Runtime, asked: Compact, kept: Kept, before: Before) -> tuple[Compacted, list[str]]:
    """The shortened conversation, and the fields that had no effect. Raises as answering it would."""
    request = CreateResponse(
        asked.model,
        asked.input,
        instructions=asked.instructions,
        previous_response_id=asked.previous_response_id,
        prompt_cache_key=asked.prompt_cache_key,
        max_output_tokens=_LONGEST,
    )
    target = runtime.target(request.model)
    said = await conversation(runtime, request, kept, before)
    said.spoken.add(Message("user", _ASKED), "input")
    asks = wanted(request, target, said.spoken)
    turn = chat.turn(runtime, target, asks.asked)
    with named_here(said.spoken):
        started = (await admit([turn]))[0]
    count = Count()
    summary = ""
    async with aclosing(turn):
        async for step in turn:
            parts = added(step)
            count.add(parts)
            summary += "".join(part.text for part in parts)
    compaction = CompactionItem(fresh("compaction"), sealed(summary.strip()))
    short = Compacted(
        f"resp_{token_hex(24)}",
        int(time.time()),
        [*_said_by_user([*said.earlier, *said.items]), msgspec.to_builtins(compaction)],
        usage(count, started.prompt_tokens),
    )
    return short, [*asks.no_effect, *said.passed_over]


def _said_by_user(items: list[Json]) -> list[Json]:
    return [item for item in items if item["type"] == "message" and item["role"] == "user"]
