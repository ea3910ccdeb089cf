"""What chat and completion requests share: sampling parameters, those that must be honoured, and usage in streams."""

from collections.abc import Mapping
from typing import Literal

from server.api.formats import format_field
from server.api.wire import Generation
from server.errors import InvalidValue, UnsupportedParameter
from server.models.abilities import able
from server.models.engine import Card, Sampling

SAMPLED = (
    *("temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty", "repetition_penalty"),
    *("seed", "ignore_eos"),
)
"""Parameters that a model may leave without effect: they change which answer comes, not what it promises."""

PROMISED = ("logit_bias", "min_tokens", "stop_token_ids", "return_token_ids", "adapter")
"""Parameters that say what an answer will be or bring: a model that cannot honour them refuses."""

NEUTRAL = Sampling()
_SEEDS = 2**63
"""As many as a worker's messages hold; clients send negative ones and larger ones."""
_SEED_STEP = 1_000_003
"""Between the choices of one seeded request, so that they differ and each can be had again."""

Counted = Literal["never", "last", "always"]
"""Which chunks of a stream say what was used."""


def promised(asked: Generation) -> dict[str, str]:
    """The abilities a model needs for this request, by the field that asks for each."""
    needed = {name: name for name in PROMISED if getattr(asked, name)}
    field = format_field(asked)
    return needed if field is None else needed | {field: "response_format"}


def require(needed: Mapping[str, str], model: str, card: Card) -> None:
    """Raises UnsupportedParameter where the model has not an ability; `needed` are these, by the client's fields."""
    for param, ability in needed.items():
        if ability not in card.honours:
            others = ", ".join(able(ability))
            raise UnsupportedParameter(
                f"The model `{model}` cannot honour `{param}`: {card.description} These engines can: {others}.",
                param=param,
            )


def without_effect(asked: Generation, card: Card | None) -> list[str]:
    """The sampling parameters of a request that change nothing of this model's answers."""
    honours = frozenset[str]() if card is None else card.honours
    return [name for name in SAMPLED if getattr(asked, name) is not None and name not in honours]


def sampling(asked: Generation, index: int, top_logprobs: int | None) -> Sampling:
    """How choice number `index` of a request is sampled. Raises InvalidValue naming the field that is wrong."""
    given = {name: value for name in SAMPLED if (value := getattr(asked, name)) is not None and name != "seed"}
    promises = asked.logit_bias or asked.min_tokens or asked.stop_token_ids or asked.adapter
    if not given and asked.seed is None and not promises and top_logprobs is None:
        return NEUTRAL
    return Sampling(
        **given,
        seed=None if asked.seed is None else (asked.seed + index * _SEED_STEP) % _SEEDS,
        logit_bias=_biases(asked.logit_bias or {}),
        top_logprobs=top_logprobs,
        min_tokens=asked.min_tokens or 0,
        stop_token_ids=asked.stop_token_ids or [],
        adapter=asked.adapter,
    )


def _biases(given: dict[str, float]) -> dict[int, float]:
    foreign = [token[:60] for token in given if not (token.isascii() and token.isdigit() and len(token) < 10)]
    if foreign:
        names = ", ".join(map(repr, foreign[:20]))
        raise InvalidValue(f"The keys of `logit_bias` are token ids, not {names}.", param="logit_bias")
    return {int(token): bias for token, bias in given.items()}


def check_length(asked: Generation, limit: int | None) -> None:
    """Raises InvalidValue where more tokens are asked for than the answer's `limit` allows."""
    if asked.min_tokens and limit is not None and asked.min_tokens > limit:
        raise InvalidValue(f"`min_tokens` is more than the {limit} tokens an answer may have.", param="min_tokens")


def counted(asked: Generation) -> Counted:
    """Raises InvalidValue where what is not streamed has options for a stream: OpenAI refuses that too."""
    options = asked.stream_options
    if options is None:
        return "never"
    if not asked.stream:
        raise InvalidValue("`stream_options` need `stream: true`.", param="stream_options")
    if not options.include_usage:
        return "never"
    return "always" if options.continuous_usage_stats else "last"
