"""What chat and completion requests share: sampling parameters, and the grammar that `response_format` asks for."""

from typing import Any

import msgspec

from server.api.wire import ChatRequest, CompletionRequest
from server.errors import InvalidValue
from server.models.engine import Grammar, Sampling

SAMPLED = (
    *("temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty", "repetition_penalty"),
    *("seed", "ignore_eos"),
)
"""Parameters that a model may leave without effect: they change which answer comes, not what it promises."""

NEUTRAL = Sampling()
_SEEDS = 2**63
"""As many as a worker's messages hold; clients send negative ones and larger ones."""
_SEED_STEP = 1_000_003
"""Between the choices of one seeded request, so that they differ and each can be had again."""


def sampling(asked: ChatRequest | CompletionRequest, index: int, top_logprobs: int | None) -> Sampling:
    """How choice number `index` of a request is sampled. Raises InvalidValue naming the field that is wrong."""
    given = {name: value for name in SAMPLED if (value := getattr(asked, name)) is not None and name != "seed"}
    if not given and asked.seed is None and not asked.logit_bias and top_logprobs is None:
        return NEUTRAL
    return Sampling(
        **given,
        seed=None if asked.seed is None else (asked.seed + index * _SEED_STEP) % _SEEDS,
        logit_bias=_biases(asked.logit_bias or {}),
        top_logprobs=top_logprobs,
    )


def _biases(given: dict[str, float]) -> dict[int, float]:
    for token in given:
        if not (token.isascii() and token.isdigit() and len(token) < 10):
            raise InvalidValue(f"The keys of `logit_bias` are token ids, not {token[:60]!r}.", param="logit_bias")
    return {int(token): bias for token, bias in given.items()}


def grammar(wanted: dict[str, Any] | None) -> Grammar | None:
    """OpenAI's three types, and two of ours: {"type": "regex", "pattern": ...}, {"type": "lark", "grammar": ...}."""
    param = "response_format"
    match wanted:
        case None | {"type": "text"}:
            return None
        case {"type": "json_object", "schema": dict(schema)}:  # as llama.cpp has it
            return Grammar("json_schema", msgspec.json.encode(schema).decode(), f"{param}.schema")
        case {"type": "json_object"}:
            return Grammar("json_schema", '{"type": "object"}', param)
        case {"type": "json_schema", "json_schema": {"schema": dict(schema)}}:
            return Grammar("json_schema", msgspec.json.encode(schema).decode(), f"{param}.json_schema.schema")
        case {"type": "json_schema"}:
            raise InvalidValue("`json_schema` needs an object `schema`.", param=f"{param}.json_schema")
        case {"type": "regex", "pattern": str(pattern)}:
            return Grammar("regex", pattern, f"{param}.pattern")
        case {"type": "lark", "grammar": str(text)}:
            return Grammar("lark", text, f"{param}.grammar")
        case {"type": "regex" | "lark" as kind}:
            missing = "pattern" if kind == "regex" else "grammar"
            raise InvalidValue(f"The type `{kind}` needs a text `{missing}`.", param=f"{param}.{missing}")
        case _:
            raise InvalidValue(
                "`response_format.type` is text, json_object, json_schema, regex or lark.", param=f"{param}.type"
            )
