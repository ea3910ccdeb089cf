"""Compiling a grammar never ends the process, however deep the grammar is."""

import json
import threading

import pytest
from llguidance import LLMatcher

from server.errors import InvalidValue
from server.models.engine import Grammar
from server.models.engines.compiling import compiled

RULES = "start: r0\n" + "".join(f"r{n}: ((r{n + 1}))\n" for n in range(1000)) + 'r1000: "a"\n'
DEFINITIONS = json.dumps(
    {
        "$ref": "#/$defs/d0",
        "$defs": {f"d{n}": {"properties": {"a": {"$ref": f"#/$defs/d{n + 1}"}}} for n in range(4000)} | {"d4000": {}},
    }
)
BOMBS = [Grammar("lark", RULES), Grammar("json_schema", DEFINITIONS)]
"""As long and as deep as is taken; the schema needs several times the stack of an ordinary thread."""


@pytest.mark.parametrize("bomb", BOMBS, ids=lambda bomb: bomb.kind)
def test_a_grammar_of_thousands_of_steps_compiles(bomb: Grammar) -> None:
    source = LLMatcher.grammar_from_lark(bomb.text)
    if bomb.kind == "json_schema":
        source = LLMatcher.grammar_from_json_schema(bomb.text)
    assert compiled(bomb, lambda: LLMatcher.validate_grammar(source)) == ""


def test_a_longer_one_is_refused_by_its_field_and_compiled_nowhere() -> None:
    with pytest.raises(InvalidValue, match="Lark grammar has more than 16384 characters") as refused:
        compiled(Grammar("lark", " " * (2**14 + 1), "guided_grammar"), lambda: pytest.fail("it was compiled"))
    assert refused.value.param == "guided_grammar"


def test_what_compiling_raises_is_raised_and_other_threads_keep_their_stack() -> None:
    before = threading.stack_size()
    with pytest.raises(ZeroDivisionError):
        compiled(Grammar("regex", "a"), lambda: 1 // 0)
    assert threading.stack_size() == before
