"""llama.cpp's grammars as Lark: what they accept stays the same, and what is no grammar is told with its line."""

import pytest
from llguidance import LLMatcher, LLTokenizer

from server.models.gbnf import LONGEST, as_lark

JSON = r"""
# As in llama.cpp's grammars/json.gbnf.
root   ::= object
value  ::= object | array | string | number | ("true" | "false" | "null") ws
object ::= "{" ws (
    string ":" ws value
    ("," ws string ":" ws value)*
  )? "}" ws
array  ::= "[" ws ( value ("," ws value)* )? "]" ws
string ::= "\"" ( [^"\\\x7F\x00-\x1F] | "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}) )* "\"" ws # any text
number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9] [1-9]{0,15})? ws
ws     ::= | " " | "\n" [ \t]{0,20}
"""


def accepts(grammar: str, text: str) -> bool:
    matcher = LLMatcher(LLTokenizer("byte"), LLMatcher.grammar_from_lark(as_lark(grammar)), log_level=0)
    assert not matcher.is_error(), matcher.get_error()
    data = [*text.encode()]
    return matcher.try_consume_tokens(data) == len(data) and bool(matcher.is_accepting())


@pytest.mark.parametrize(
    ("grammar", "whole", "none"),
    [
        ('root ::= "a"{5,5}', ["aaaaa"], ["aaaa", "aaaaaa"]),
        ('root ::= "a"{2} "b"{1,} "c"? | "d"+', ["aab", "aabbc", "ddd"], ["ab", "aac", ""]),
        ('root ::= [a-z]* "z"', ["z", "abz", "zz"], ["a", ""]),
        ('root ::= name "x"\nname ::= [a-z]+', ["ax", "xx"], ["x"]),
        (r"root ::= [-+*/] [^a-] [a-c-] [+\x2d/] [\]x] [\x41-\x42]", ["/b-+]A", "-z--xB"], ["/-a+]A", "/ba.]A"]),
        (r'root ::= "\x41\u00e9\U0001F600\t\"\\" .', ['Aé😀\t"\\\n', 'Aé😀\t"\\漢'], ['Aé😀\t"\\']),
        (
            'root ::= start-a | start_a | Start\nstart-a ::= "1"\nstart_a ::= "2"\nStart ::= "3"\n  | "4"',
            "1234",
            ["12"],
        ),
        ('root ::= "" | [ぁ-ゟ]+', ["", "ぁあ"], ["a"]),
        (JSON, ['{"a": [1, 2.5e3, "x\\n", {}],\n "b": null}', "{}"], ["{a}", '{"a":}', '{"a": "\n"}']),
    ],
)
def test_the_same_texts_are_accepted(grammar: str, whole: list[str], none: list[str]) -> None:
    assert [text for text in whole if not accepts(grammar, text)] == []
    assert [text for text in none if accepts(grammar, text)] == []


@pytest.mark.parametrize(
    ("grammar", "why"),
    [
        ("root ::= foo", "line 1: there is no rule `foo`"),
        ('x ::= "a"', "no rule `root`"),
        ("", "no rule `root`"),
        ("anything", "line 1: .* should"),
        ('root ::= "a"\n\n"b"', "line 3: .* the name of a rule should"),
        ('root ::= ("a"', "a bracket is not closed"),
        ('root ::= "a")', "not expected here"),
        ('root ::= "a', "is no GBNF"),
        ("root ::= <think>", "is no GBNF"),
        ("root ::= []", "is empty"),
        (r'root ::= "\q"', r"\\q stands for nothing"),
        (r'root ::= "\ud800"', "is no character"),
        ('root ::= "a"\nroot ::= "b"', "line 2: the rule `root` stands twice"),
        ("root ::= " + "(" * 100 + '"a"' + ")" * 100, "nested too deeply"),
        ('root ::= "a"' + " " * LONGEST, "more than"),
    ],
)
def test_what_is_no_grammar_is_told_with_its_line(grammar: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        as_lark(grammar)
