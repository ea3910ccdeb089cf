"""A request to generate, as an engine takes it that chooses tokens itself: checked, and ready to begin."""

from collections.abc import Iterable
from dataclasses import dataclass

from server.errors import ContextLengthExceeded, InvalidValue, RequestError
from server.models.engine import (
    Admitted,
    Detokenize,
    Generate,
    Request,
    Spelled,
    Tokenize,
    TokenLogprob,
    Tokens,
    check_tokens,
)
from server.models.engines.sampling.constraint import Grammars
from server.models.engines.sampling.sampler import Choice, Chooser
from server.models.engines.sampling.vocabulary import Speaking, Vocabulary


@dataclass(frozen=True)
class Admission:
    """`tokens` of the prompt, the `limit` of those to come, and how these are chosen and told, `ids` whether by id.

    `scored` is how many alternatives each token of the prompt is wanted with; None where it is not scored.
    """

    tokens: list[int]
    limit: int
    chooser: Chooser
    speaking: Speaking
    scored: int | None
    ids: bool

    @property
    def told(self) -> Admitted:
        return Admitted(len(self.tokens), list(self.tokens) if self.ids else [])


class Desk:
    """Admits requests to one model. `context` is in tokens, prompt and answer together."""

    def __init__(self, words: Vocabulary, context: int) -> None:
        self._words = words
        self._context = context
        self._grammars = Grammars(words)

    def admit(self, request: Request) -> Admission:
        """Raises RequestError, naming the field, for what this model cannot answer."""
        if not isinstance(request, Generate):
            raise RequestError("This model is for chat, not for embeddings or reranking.", param="model")
        tokens = self._tokens(request.prompt)
        if len(tokens) >= self._context:
            raise ContextLengthExceeded.of(self._context, len(tokens))
        self._check(request.sampling.logit_bias, "logit_bias")
        self._check(request.sampling.stop_token_ids, "stop_token_ids")
        constraint = None if request.grammar is None else self._grammars.matcher(request.grammar)
        room = self._context - len(tokens)
        return Admission(
            tokens,
            room if request.max_tokens is None else min(room, request.max_tokens),
            Chooser(request.sampling, tokens, constraint, self._words.ends),
            Speaking(self._words, request.markers),
            request.prompt_logprobs,
            request.token_ids,
        )

    def count(self, request: Generate) -> int:
        """How many tokens of prompt `admit` would find."""
        return len(self._tokens(request.prompt))

    def tokenize(self, request: Tokenize) -> Tokens:
        ids = self._words.encode(request.text, begin=request.add_special, parse_special=request.parse_special)
        return Tokens(ids, [self._words.bytes_of(token) for token in ids] if request.pieces else [])

    def detokenize(self, request: Detokenize) -> Spelled:
        """Raises InvalidValue for an id that is not in the vocabulary."""
        self._check(request.tokens, "tokens")
        return Spelled(self._words.decode(request.tokens))

    def _tokens(self, prompt: str | list[int] | None) -> list[int]:
        if prompt is None:
            raise RequestError("This model needs a chat template, and has none.", param="messages")
        tokens = self._words.encode(prompt, begin=True) if isinstance(prompt, str) else list(prompt)
        self._check(tokens, "prompt")
        if not tokens:
            raise InvalidValue("The prompt is empty.", param="prompt")
        return tokens

    def _check(self, tokens: Iterable[int], param: str) -> None:
        check_tokens(tokens, len(self._words.pieces), param)

    def logprobs(self, choice: Choice) -> list[TokenLogprob]:
        """What is told of a token: nothing where its log-probability was not asked for."""
        if choice.logprob is None:
            return []
        top = [self.logprob(token, logprob) for token, logprob in choice.top]
        return [self.logprob(choice.token, choice.logprob, top)]

    def logprob(self, token: int, logprob: float | None, top: list[TokenLogprob] | None = None) -> TokenLogprob:
        """`logprob` is None for a prompt's first token, of which no logits tell."""
        data = self._words.bytes_of(token)
        return TokenLogprob(data.decode("utf-8", "replace"), data, logprob, top or [])
