"""Parts to blocks of Anthropic's wire: which begin when, what each holds, and why the answer ended."""

from msgspec import UNSET

from server.api.messages.blocks import BlockEvent, Blocks, Thoughts, whole
from server.api.messages.wire import BlockStart, CharLocation, TextBlock, ThinkingBlock, ToolUseBlock
from server.chat import Cited, Part
from server.knowledge import Hit
from server.models.tool_formats import CallArguments, CallStart

HIT = Hit(
    *("c1", "handbook", "d1", "keys.md", "docs/keys.md", "Keys", "Rotate"),
    *("Turn them. Often.", 0.9, {}, 100, 117, 5, {}),
)


def fed(*parts: Part, thoughts: Thoughts = "shown") -> tuple[Blocks, list[BlockEvent]]:
    blocks = Blocks(thoughts)
    return blocks, [event for part in parts for event in blocks.feed(part)]


def test_each_kind_of_content_is_a_block() -> None:
    blocks, events = fed(
        Part("", 1, reasoning="Hm"),
        Part("", 1, reasoning="m."),
        Part("I look", 1),
        Part(".", 1, calls=[CallStart(0, "look"), CallArguments(0, '{"at": ')]),
        Part("", 1, calls=[CallArguments(0, '"it"}'), CallStart(1, "go"), CallArguments(1, "{}")]),
        Part("", 0, finish_reason="tool_calls"),
    )
    thought, text, look, go = whole(events)
    assert isinstance(thought, ThinkingBlock) and (thought.thinking, len(thought.signature)) == ("Hmm.", 64)
    assert text == TextBlock("I look.")
    assert isinstance(look, ToolUseBlock) and (look.name, look.input) == ("look", {"at": "it"})
    assert isinstance(go, ToolUseBlock) and (go.name, go.input) == ("go", {})
    assert [event.index for event in events if isinstance(event, BlockStart)] == [0, 1, 2, 3]
    assert (blocks.stop_reason, blocks.stop_sequence) == ("tool_use", None)


def test_the_block_that_is_cited_ends_with_what_is_cited() -> None:
    first, second = Cited(0, 10, 0, 10, 0, HIT), Cited(11, 17, 11, 17, 0, HIT)
    _, events = fed(
        Part("Turn them.", 2, [first]), Part(" Often.", 2, [second]), Part(" So.", 1), Part("", 0, finish_reason="stop")
    )
    location = CharLocation("Turn them.", 0, "Keys", 100, 110, "d1")
    other = CharLocation("Often.", 0, "Keys", 111, 117, "d1")
    assert whole(events) == [
        TextBlock("Turn them.", [location]),
        TextBlock(" Often.", [other]),
        TextBlock(" So.", UNSET),
    ]


def test_why_it_ended() -> None:
    for reason, stop, expected in (
        ("stop", None, "end_turn"),
        ("stop", "END", "stop_sequence"),
        ("length", None, "max_tokens"),
        ("tool_calls", None, "tool_use"),
    ):
        blocks, _ = fed(Part("x", 1, finish_reason=reason, stop=stop))
        assert (blocks.stop_reason, blocks.stop_sequence) == (expected, stop)


def test_a_call_that_broke_off_keeps_what_is_whole() -> None:
    for text, expected in (('{"a": 1, "b": [2, ', {"a": 1, "b": [2]}), ("", {}), ("[1]", {}), ('{"a', {})):
        _, events = fed(
            Part("", 1, calls=[CallStart(0, "f"), CallArguments(0, text)]), Part("", 0, finish_reason="length")
        )
        (call,) = whole(events)
        assert isinstance(call, ToolUseBlock) and call.input == expected
