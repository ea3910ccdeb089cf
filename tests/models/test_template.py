"""A model's own chat template: what it may use, what it may not, and how its faults are told."""

import json
from typing import Any

import pytest

from server.errors import InvalidValue
from server.models import template as template_module
from server.models.engine import Message, ToolCall
from server.models.template import ChatTemplate

HELLO = [Message("user", "Hello")]


def render(source: str, messages: list[Message] | None = None, **options: Any) -> str:
    return ChatTemplate(source, {"bos_token": "<s>"}).render(messages or HELLO, **options)


def test_blocks_leave_no_lines_behind_as_the_format_wants() -> None:
    loop = "{% for m in messages %}\n    {% if true %}\n{{ m.role }}: {{ m['content'] }}\n    {% endif %}\n{% endfor %}"
    source = "{{ bos_token }}\n" + loop
    assert render(source) == "<s>\nuser: Hello\n"


def test_json_is_written_as_models_were_trained_on_it() -> None:
    value = {"b": "<é>", "a": [1, None]}
    assert render("{{ x | tojson }}", x=value) == '{"b": "<é>", "a": [1, null]}'
    assert render("{{ x | tojson(indent=2, sort_keys=true) }}", x=value) == json.dumps(
        value, ensure_ascii=False, indent=2, sort_keys=True
    )


def test_what_the_convention_offers_is_there() -> None:
    assert render("{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}") == "01"
    assert render("{% generation %}a{% endgeneration %}b") == "ab"
    assert len(render("{{ strftime_now('%Y-%m-%d') }}")) == 10
    assert render("{{ add_generation_prompt }}{{ documents }}") == "TrueNone"


def test_calls_are_given_as_objects_and_absent_fields_are_absent() -> None:
    called = Message("assistant", "", tool_calls=[ToolCall("c1", "f", '{"a": 1}')])
    source = "{% if messages[0].tool_calls %}{{ messages[0].tool_calls[0].function.arguments.a + 1 }}{% endif %}"
    assert render(source, [called]) == "2"
    odd = Message("assistant", "", tool_calls=[ToolCall("c1", "f", "not json")])
    assert render("{{ messages[0].tool_calls[0].function.arguments }}", [odd]) == "not json"
    assert render("{{ messages[0].name is defined }}{{ 'tool_calls' in messages[0] }}") == "FalseFalse"


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ messages[0].update({'a': 1}) }}",
    ],
)
def test_a_template_cannot_leave_its_sandbox(source: str) -> None:
    with pytest.raises(InvalidValue, match="cannot render these messages"):
        render(source)


@pytest.mark.parametrize(
    "source",
    ["{{ 1 / 0 }}", "{{ messages[7].content }}", "{{ 'a' + 1 }}", "{{ undefined_thing.x }}", "{{ ([] | first).x }}"],
)
def test_a_template_that_fails_over_the_messages_is_the_requests_fault(source: str) -> None:
    with pytest.raises(InvalidValue) as refused:
        render(source)
    assert refused.value.param == "messages"


def test_a_template_that_runs_away_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_module, "LONGEST_PROMPT", 10_000)
    with pytest.raises(InvalidValue, match="without end"):
        render("{% for i in range(99999) %}{{ 'word ' * 50 }}{% endfor %}")


@pytest.mark.parametrize("source", ["{% for %}", "{{ a b }}", "{% endif %}", "{{"])
def test_a_template_that_does_not_compile_names_the_line(source: str) -> None:
    with pytest.raises(ValueError, match="does not compile: line 1"):
        ChatTemplate(source, {})


PARTS = (
    "{% for m in messages %}{{ m.role }}:{% for line in m.content %}{% if line.type == 'text' %} {{ line.text }}"
    "{% elif line.type == 'image' %}<image>{% endif %}{% endfor %};{% endfor %}"
)


def test_a_template_written_for_parts_gets_parts() -> None:
    conversation = [Message("system", "Be brief."), Message("user", "Hello"), Message("assistant", "")]
    assert render(PARTS, conversation) == "system: Be brief.;user: Hello;assistant: ;"
    either = "{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}parts{% endif %}{% endfor %}"
    assert render(either) == "Hello"
    insists = "{% if messages[0].content is string %}{{ raise_exception('parts!') }}{% endif %}" + PARTS
    assert render(insists) == "user: Hello;"
    with pytest.raises(InvalidValue, match="never"):
        render("{{ raise_exception('never') }}")
