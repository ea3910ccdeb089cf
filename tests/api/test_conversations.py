"""What Anthropic's and Ollama's messages become: pictures for models that see them, calls with ids of their own."""

import msgspec
import pytest

from server.api.messages.conversation import conversation
from server.api.messages.wire import CountTokensRequest
from server.api.ollama.asked import messages_of
from server.api.ollama.wire import OllamaMessage
from server.errors import UnsupportedParameter
from server.models.engine import Message, ToolCall

PICTURE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}
SEEN = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}


def told(*turns: object, pictures: bool = False, in_results: bool = False) -> tuple[list[Message], str]:
    asked = msgspec.convert({"model": "m", "messages": turns}, CountTokensRequest)
    return conversation(asked, pictures=pictures, in_results=in_results)


def test_pictures_are_passed_on_to_models_that_see_them() -> None:
    turn = {"role": "user", "content": [{"type": "text", "text": "What?"}, PICTURE]}
    parts = [{"type": "text", "text": "What?"}, SEEN]
    origins = ["messages[0].content[0]", "messages[0].content[1]"]
    assert told(turn, pictures=True) == ([Message("user", "What?", parts=parts, origins=origins)], "")
    [twice] = told({"role": "user", "content": "Look."}, turn, pictures=True)[0]
    assert (twice.text, twice.parts) == ("Look.\nWhat?", [{"type": "text", "text": "Look."}, *parts])
    assert twice.origins[1:] == ["messages[1].content[0]", "messages[1].content[1]"]
    with pytest.raises(UnsupportedParameter):
        told(turn)


def test_a_picture_that_a_tool_brought_stands_in_its_result_for_models_of_this_machine() -> None:
    call = {"type": "tool_use", "id": "toolu_abcdefgh1", "name": "look", "input": {}}
    content = [{"type": "text", "text": "Here:"}, PICTURE]
    result = {"type": "tool_result", "tool_use_id": call["id"], "content": content}
    turns = {"role": "assistant", "content": [call]}, {"role": "user", "content": [result]}
    _, brought = told(*turns, pictures=True, in_results=True)[0]
    assert (brought.role, brought.tool_call_id, brought.text) == ("tool", "abcdefgh1", "Here:")
    assert brought.parts == [{"type": "text", "text": "Here:"}, SEEN]
    assert brought.origins[1] == "messages[1].content[0].content[1]"
    with pytest.raises(UnsupportedParameter):
        told(*turns, pictures=True)
    failed = {"role": "user", "content": [result | {"is_error": True}]}
    _, brought = told(turns[0], failed, pictures=True, in_results=True)[0]
    assert brought.parts == [{"type": "text", "text": "Error: "}, {"type": "text", "text": "Here:"}, SEEN]
    _, brought = told(turns[0], {"role": "user", "content": [result | {"content": content[:1], "is_error": True}]})[0]
    assert (brought.text, brought.parts) == ("Error: Here:", None)


def test_calls_have_ids_that_every_template_takes() -> None:
    calls = [
        {"type": "tool_use", "id": each, "name": "f", "input": {}} for each in ("toolu_abcdefgh1", "toolu_01Foreign")
    ]
    results = [{"type": "tool_result", "tool_use_id": call["id"], "content": "r"} for call in calls]
    (called, first, second), begun = told({"role": "assistant", "content": calls}, {"role": "user", "content": results})
    assert [call.id for call in called.tool_calls] == [first.tool_call_id, second.tool_call_id]
    assert (called.tool_calls[0], first.name, begun) == (ToolCall("abcdefgh1", "f", "{}"), "f", "")
    assert all(len(call.id) == 9 and call.id.isalnum() for call in called.tool_calls)


def test_results_without_ids_answer_ollamas_calls_in_their_order() -> None:
    call = {"function": {"name": "f", "arguments": {"a": 1}}}
    other = {"function": {"name": "g", "arguments": {}}}
    given = [
        {"role": "assistant", "tool_calls": [call, other, call]},
        {"role": "tool", "tool_name": "g", "content": "1"},
        {"role": "tool", "content": "2"},
        {"role": "tool", "tool_name": "f", "content": "3"},
        {"role": "tool", "content": "4"},
        {"role": "user", "content": "See", "images": ["/9j/4AAQ"]},
    ]
    called, *results, seen = messages_of(msgspec.convert(given, list[OllamaMessage]))
    first, second, third = [each.id for each in called.tool_calls or ()]
    assert [result.tool_call_id for result in results] == [second, first, third, None]
    assert isinstance(seen.content, list)
    assert seen.content[0].image_url == {"url": "data:image/jpeg;base64,/9j/4AAQ"}
    assert seen.content[1].text == "See"
