"""Grammars as masks over the vocabulary, by llguidance: at every step only tokens that can still end in the grammar."""

import numpy as np
from llguidance import LLMatcher, LLTokenizer
from numpy.typing import NDArray

from server.errors import InvalidValue
from server.models.engine import Grammar
from server.models.engines.compiling import NAMES, compiled
from server.models.engines.sampling.vocabulary import Vocabulary


class Grammars:
    """Compiles grammars for one vocabulary; the tokenizer's tables are made at the first one."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._tokenizer: LLTokenizer | None = None

    def matcher(self, grammar: Grammar) -> "Constraint":
        """Raises InvalidValue, naming the field it came from, where the grammar does not compile."""
        tokenizer = self._tokenizer
        if tokenizer is None:
            tokenizer = self._tokenizer = LLTokenizer(
                self._vocabulary.tokenizer.to_str(),
                n_vocab=len(self._vocabulary.pieces),
                eos_token=sorted(self._vocabulary.ends),
            )
        matcher = compiled(grammar, lambda: LLMatcher(tokenizer, _source(grammar)))
        if matcher.is_error():
            raise InvalidValue(f"The {NAMES[grammar.kind]} cannot be used: {_why(matcher)}", param=grammar.param)
        return Constraint(matcher, len(self._vocabulary.pieces), grammar.param)


def _source(grammar: Grammar) -> str:
    match grammar.kind:
        case "json_schema":
            try:
                # Without this, a model may pad with white space for ever, and a weak one does.
                return LLMatcher.grammar_from_json_schema(grammar.text, defaults={"whitespace_flexible": False})
            except ValueError as error:
                raise InvalidValue(f"The JSON Schema cannot be used: {error}", param=grammar.param) from error
        case "regex":
            return LLMatcher.grammar_from_regex(grammar.text)
        case "lark":
            return LLMatcher.grammar_from_lark(grammar.text)
        case other:
            raise InvalidValue(f"The kind of grammar {other!r} is not one of {', '.join(NAMES)}.", param=grammar.param)


class Constraint:
    """One answer's place in its grammar. Whatever goes wrong is raised: an answer never goes on unconstrained."""

    def __init__(self, matcher: LLMatcher, size: int, param: str) -> None:
        self._matcher = matcher
        self._size = size
        self._param = param
        self._bits = np.zeros((size + 31) // 32, np.int32)

    def allowed(self) -> NDArray[np.bool_]:
        """Which tokens may come next, [vocabulary]. Raises InvalidValue where the grammar got too complex."""
        self._matcher.unsafe_compute_mask_ptr(self._bits.ctypes.data, self._bits.nbytes)
        self._check()
        allowed = np.unpackbits(self._bits.view(np.uint8), bitorder="little")[: self._size].view(np.bool_)
        if not allowed.any():
            raise self._fault("no token of this model can follow")
        return allowed

    def take(self, token: int) -> None:
        """Go on by a token. Raises InvalidValue where the grammar does not have it."""
        if self._matcher.is_stopped() and not self._matcher.is_error():
            return
        self._matcher.consume_token(token)
        self._check()

    @property
    def ended(self) -> bool:
        """Whether nothing may follow."""
        return bool(self._matcher.is_stopped())

    def _check(self) -> None:
        if self._matcher.is_error():
            raise self._fault(_why(self._matcher))

    def _fault(self, why: str) -> InvalidValue:
        return InvalidValue(f"The grammar cannot be followed any further: {why}", param=self._param)


def _why(matcher: LLMatcher) -> str:
    """The first line of what the library says, and the reason it gives of a regular expression; the others show its
    insides."""
    first, *others = (matcher.get_error().strip() or "no reason was given").splitlines()
    reasons = [line.removeprefix("error: ") for line in others if line.startswith("error: ")]
    return f"{first} {reasons[0]}" if first.endswith(":") and reasons else first
