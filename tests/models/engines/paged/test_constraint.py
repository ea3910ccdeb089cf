"""Grammars bind weights that would never obey, and whatever goes wrong with one ends that answer by its field."""

import json
import re

import msgspec
import pytest

from server.errors import InvalidValue
from server.models.engine import Grammar
from server.models.engines.paged import PagedEngine
from tests.models.engines.paged.answering import Answer, alone, answered, asking, stepped

_SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "size": {"enum": ["small", "large"]},
        "count": {"type": "integer", "minimum": 0, "maximum": 99},
        "tags": {"type": "array", "items": {"type": "boolean"}, "maxItems": 3},
    },
    "required": ["name", "size", "count", "tags"],
    "additionalProperties": False,
}
SCHEMA = Grammar("json_schema", json.dumps(_SCHEMA))


def _conforms(text: str) -> None:
    found = json.loads(text)
    assert sorted(found) == sorted(_SCHEMA["properties"])  # type: ignore[arg-type]
    assert isinstance(found["name"], str) and len(found["name"]) <= 12
    assert found["size"] in ("small", "large")
    assert 0 <= found["count"] <= 99
    assert len(found["tags"]) <= 3 and all(isinstance(each, bool) for each in found["tags"])


def test_random_weights_write_what_the_schema_says(family: PagedEngine) -> None:
    requests = [asking("Say it:", 200, temperature=1.0, seed=seed) for seed in range(4)]
    answers = answered(family, *[msgspec.structs.replace(each, grammar=SCHEMA) for each in requests])
    assert len({each.text for each in answers}) > 1
    for each in answers:
        assert each.reason == "stop"
        _conforms(each.text)


def test_a_regular_expression_and_a_lark_grammar_bind(llama: PagedEngine) -> None:
    pattern = r"[A-Z]{2}-[0-9]{3,5}( ok)?"
    lark = 'start: greeting " " name "!"\ngreeting: "Hello" | "Good day"\nname: /[A-Z][a-z]{2,8}/'
    request = asking("x", 60, temperature=1.0, seed=3)
    regex, other = answered(
        llama,
        msgspec.structs.replace(request, grammar=Grammar("regex", pattern)),
        msgspec.structs.replace(request, grammar=Grammar("lark", lark)),
    )
    assert re.fullmatch(pattern, regex.text)
    assert re.fullmatch(r"(Hello|Good day) [A-Z][a-z]{2,8}!", other.text)
    assert (regex.reason, other.reason) == ("stop", "stop")


def test_a_finished_document_ends_though_ends_are_ignored(llama: PagedEngine) -> None:
    request = asking("x", 60, ignore_eos=True)
    closed, open_ = answered(
        llama,
        msgspec.structs.replace(request, grammar=Grammar("regex", "abc")),
        msgspec.structs.replace(request, grammar=Grammar("regex", "a+")),
    )
    assert (closed.text, closed.reason) == ("abc", "stop")
    assert re.fullmatch("a+", open_.text) and open_.reason == "length"


def test_the_automaton_writes_a_short_document(automaton: PagedEngine) -> None:
    [answer] = answered(automaton, msgspec.structs.replace(asking("x\n", 99), grammar=SCHEMA))
    _conforms(answer.text)
    assert len(answer.text) < 80


def test_penalties_and_logprobs_act_under_a_grammar(llama: PagedEngine) -> None:
    request = msgspec.structs.replace(
        asking("x", 40, temperature=0.8, seed=1, frequency_penalty=1.0, top_logprobs=2),
        grammar=Grammar("regex", "[a-z ]{30}"),
    )
    [answer] = answered(llama, request)
    assert re.fullmatch("[a-z ]{30}", answer.text)
    assert len(answer.logprobs) == answer.tokens


@pytest.mark.parametrize(
    ("grammar", "words"),
    [
        (Grammar("json_schema", '{"type": "nonsense"}', "response_format"), "The JSON Schema cannot be used"),
        (Grammar("json_schema", "not json", "tools"), "The JSON Schema cannot be used"),
        (Grammar("json_schema", '{"type": "object", "not": {}}', "tools"), "The JSON Schema cannot be used"),
        (Grammar("regex", "[a-", "regex"), "The regular expression cannot be used: .*: unclosed character class"),
        (Grammar("regex", "(?=a)b", "regex"), "look-around, including look-ahead and look-behind, is not supported"),
        (Grammar("lark", "start: missing", "grammar"), "The Lark grammar cannot be used"),
        (Grammar("yacc", "start", "grammar"), "'yacc' is not one of json_schema, regex, lark"),
    ],
)
def test_a_grammar_that_does_not_compile_is_refused_by_its_field(
    grammar: Grammar, words: str, llama: PagedEngine
) -> None:
    with pytest.raises(InvalidValue, match=words) as refused:
        llama.submit(0, msgspec.structs.replace(asking("x"), grammar=grammar))
    assert refused.value.param == grammar.param
    assert not llama.busy


def test_a_grammar_that_breaks_on_the_way_ends_its_own_answer_by_its_field(llama: PagedEngine) -> None:
    plain = asking("Hello there", 10)
    expected = alone(llama, plain)
    llama.submit(0, msgspec.structs.replace(asking("x"), grammar=Grammar("regex", "[ab]{9}", "guided_regex")))
    llama.submit(1, plain)
    llama.step()
    constraint = llama._answers[0].chooser.constraint
    assert constraint is not None
    constraint._matcher.consume_token(llama._words.encode("z")[0])  # as if a token had slipped through
    got: dict[int, Answer] = {}
    stepped(llama, got)
    assert got[0].failed is not None
    assert got[0].failed.param == "guided_regex"
    assert "cannot be followed any further" in got[0].failed.message
    assert got[1].tokens == expected[0].tokens - 1
