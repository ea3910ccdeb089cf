"""Asks llguidance itself whether a text is one a grammar allows, byte by byte."""

from llguidance import LLMatcher, LLTokenizer

from server.models.engine import Grammar

_BYTES = LLTokenizer("byte")


def accepts(grammar: Grammar | str, text: str) -> bool:
    """Whether `text` conforms, whole. Raises ValueError where the grammar does not compile."""
    source = _source(grammar) if isinstance(grammar, Grammar) else LLMatcher.grammar_from_lark(grammar)
    matcher = LLMatcher(_BYTES, source)
    if matcher.is_error():
        raise ValueError(matcher.get_error())
    tokens = _BYTES.tokenize_str(text)
    return matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting()


def _source(grammar: Grammar) -> str:
    match grammar.kind:
        case "json_schema":
            return LLMatcher.grammar_from_json_schema(grammar.text)
        case "regex":
            return LLMatcher.grammar_from_regex(grammar.text)
        case _:
            return LLMatcher.grammar_from_lark(grammar.text)
