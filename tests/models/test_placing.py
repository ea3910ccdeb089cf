"""Where templates take messages: tried out on the shapes of real ones, and mended where they refuse."""

from server.models.dialect import Dialect
from server.models.engine import Card, Message
from server.models.placing import Placing
from server.models.template import ChatTemplate

ANYWHERE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
FIRST_ONLY = (
    "{% for m in messages %}{% if m.role != 'system' or loop.first %}<{{ m.role }}>{{ m.content }}{% endif %}"
    "{% endfor %}"
)
ALTERNATING = (
    "{% set ns = namespace(n=0) %}{% for m in messages %}"
    "{% if m.role == 'user' or (m.role == 'assistant' and not m.tool_calls) %}"
    "{% if (m.role == 'user') != (ns.n % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
    "{% set ns.n = ns.n + 1 %}{% endif %}"
    "{% if m.role == 'system' and not loop.first %}{{ raise_exception('one system message') }}{% endif %}"
    "<{{ m.role }}>{{ m.content }}{% endfor %}"
)
TALK = [
    Message("system", "s"),
    Message("user", "u"),
    Message("system", "late"),
    Message("assistant", "a"),
    Message("tool", "t", tool_call_id="abcdefgh1"),
    Message("user", "after"),
    Message("assistant", "b"),
    Message("system", "last"),
    Message("user", "v"),
]


def shown(template: str) -> str:
    return Dialect(Card(task="chat", description="", context=100, rendered=True, template=template)).render(TALK)


def placing(template: str) -> Placing:
    return Placing.of(ChatTemplate(template, {}).render)


def test_templates_tell_what_they_take() -> None:
    assert placing(ANYWHERE) == Placing(calls=False)
    assert placing(FIRST_ONLY) == Placing(calls=False, late_system=False)
    assert placing(ALTERNATING) == Placing(calls=False, late_system=False)


def test_a_conversation_that_is_taken_stays_as_it_is() -> None:
    assert shown(ANYWHERE) == "".join(f"<{message.role}>{message.text}" for message in TALK)


def test_late_system_messages_join_the_users_words() -> None:
    assert shown(FIRST_ONLY) == "<system>s<user>u\n\nlate<assistant>a<tool>t<user>after<assistant>b<user>last\n\nv"


def test_words_after_a_result_join_it() -> None:
    expected = "<system>s<user>u\n\nlate<assistant>a<tool>t\n\nafter<assistant>b<user>last\n\nv"
    assert Placing(late_system=False, after_tool=False)(TALK) == [
        Message(role, text, tool_call_id="abcdefgh1" if role == "tool" else None)
        for role, text in (part.split(">") for part in expected.removeprefix("<").split("<"))
    ]


def test_an_answer_that_is_begun_is_past_reasoning() -> None:
    dialect = Dialect(Card(task="chat", description="", context=100, rendered=True, template=ANYWHERE))
    assert dialect.begun("<assistant>", "So") == "<assistant>So"
    assert dialect.begun("<assistant><think>\n", "So") == "<assistant><think>\n\n</think>\n\nSo"
