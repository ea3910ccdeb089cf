"""Parts to lines of Ollama's wire: calls come whole, before the last line."""

import json
from collections.abc import AsyncGenerator

import pytest

from server.api.ollama.answer import Answer, chat_line
from server.chat import Part, Started
from server.models.tool_formats import CallArguments, CallStart

PARTS = [
    [Part("", 1, reasoning="Hm."), Part("I look.", 2)],
    [Part("", 1, calls=[CallStart(0, "look"), CallArguments(0, '{"at": ')])],
    [Part("", 1, calls=[CallArguments(0, '"it"}')]), Part("", 0, finish_reason="tool_calls")],
]


async def turn() -> AsyncGenerator[Started | list[Part], None]:
    for parts in PARTS:
        yield parts


@pytest.mark.anyio
@pytest.mark.parametrize("thinks", [True, False])
async def test_calls_come_whole_before_the_last_line(thinks: bool) -> None:
    answer = Answer("m", chat_line, thinks=thinks)
    answer.taken()
    said, called, last = [json.loads(line) async for line in answer.lines(turn(), Started(7))]
    message = {"role": "assistant", "content": "I look."}
    assert said["message"] == (message | {"thinking": "Hm."} if thinks else message)
    (call,) = called["message"]["tool_calls"]
    assert call["function"] == {"name": "look", "arguments": {"at": "it"}}
    assert (last["done_reason"], last["prompt_eval_count"], last["eval_count"]) == ("stop", 7, 5)
    whole = await Answer("m", chat_line).whole(turn(), Started(7))
    assert json.loads(json.dumps(whole.message.tool_calls[0].function.arguments)) == {"at": "it"}
