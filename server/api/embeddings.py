"""`/v1/embeddings`: vectors as numbers or as base64, which every OpenAI SDK asks for unless told otherwise."""

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np
from litestar import Request, post
from numpy.typing import NDArray

from config.model import LocalModel
from server.api.decode import decode, ignored
from server.api.document import documented
from server.api.reply import Reply, json
from server.api.wire_embeddings import Embedding, EmbeddingList, EmbeddingsRequest, EmbeddingUsage
from server.errors import InvalidValue, UnsupportedParameter
from server.models.engine import Card
from server.models.model import Embeddings
from server.models.remote import RemoteModel
from server.models.served import Served
from server.routing import Needs, answered
from server.runtime import Runtime, Target


@post(
    ["/v1/embeddings", "/embeddings"],
    status_code=200,
    opt={"needs": "infer"},
    operation_class=documented(EmbeddingsRequest, EmbeddingList, summary="Turn texts into vectors"),
)
async def embeddings(request: Request[Any, Any, Any]) -> Reply:
    asked, unknown = await decode(request, EmbeddingsRequest)
    runtime: Runtime = request.app.state["runtime"]
    target = runtime.target(asked.model)
    found = await embedded(runtime, target, asked)
    as_text = asked.encoding_format == "base64"
    reply = EmbeddingList(
        object="list",
        data=[Embedding("embedding", index, _written(row, as_text)) for index, row in enumerate(found.vectors)],
        model=asked.model,
        usage=EmbeddingUsage(found.tokens, found.tokens),
    )
    no_effect = ["user"] if asked.user is not None else []
    card = target.model.card
    if asked.side is not None and card is not None and asked.side not in card.prompts:
        no_effect.append("input_type")
    return json(reply, headers=ignored(unknown + no_effect))


async def embedded(runtime: Runtime, target: Target, asked: EmbeddingsRequest) -> Embeddings:
    """The vectors of a request's input, by the model of `target` or a fallback that has as many dimensions.

    Raises where the model is for something else, or has not the dimensions that are asked for.
    """
    texts, tokens = inputs_of(asked.input)
    own = target.model.card

    def honoured(card: Card | None) -> bool:
        alike = (
            own is None or card is None or None in (own.dimension, card.dimension) or own.dimension == card.dimension
        )
        return tokens is None and alike  # token ids are of one vocabulary

    return await answered(runtime, target, Needs(honoured), lambda one: _embedded(one.model, asked, texts, tokens))


async def _embedded(
    model: Served, asked: EmbeddingsRequest, texts: list[str], tokens: list[list[int]] | None
) -> Embeddings:
    shorter = model.spec.dimensions if isinstance(model.spec, LocalModel) else ()
    check(asked, model.card, shorter)
    found = await _found(model, texts, tokens, asked)
    check(asked, model.card, shorter)  # a model that had yet to load has its card now
    return Embeddings(cut(found.vectors, asked.dimensions), found.tokens)


async def _found(
    model: Served, texts: list[str], tokens: list[list[int]] | None, asked: EmbeddingsRequest
) -> Embeddings:
    side = asked.side
    if isinstance(model, RemoteModel):  # its server knows whether its vectors can be cut
        cut_to = asked.dimensions
        return await (model.embed(texts, side, cut_to) if tokens is None else model.embed_tokens(tokens, side, cut_to))
    return await (model.embed(texts, side) if tokens is None else model.embed_tokens(tokens, side))


def check(asked: EmbeddingsRequest, card: Card | None, shorter: Sequence[int] = ()) -> None:
    """Raises where the model is for something else or has not these dimensions. To those of `shorter` it may be cut."""
    if card is None:
        return
    if card.task != "embed":
        raise InvalidValue(f"The model `{asked.model}` is for {card.task}, not for embeddings.", param="model")
    if card.engine == "remote":
        return
    if asked.dimensions not in (None, card.dimension, *(each for each in shorter if each < (card.dimension or 0))):
        cuts = f"may be cut to {', '.join(map(str, shorter))}" if shorter else "was not trained to be cut"
        raise UnsupportedParameter(
            f"The model `{asked.model}` has {card.dimension} dimensions and {cuts}.", param="dimensions"
        )


def cut(vectors: NDArray[np.float32], dimensions: int | None) -> NDArray[np.float32]:
    """The rows' first `dimensions` numbers, at length one again; all of them without."""
    if dimensions is None or dimensions == vectors.shape[1]:
        return vectors
    short = vectors[:, :dimensions]
    length = np.linalg.norm(short, axis=1, keepdims=True).astype(np.float32)
    made: NDArray[np.float32] = short / np.maximum(length, np.finfo(np.float32).tiny)
    return made


def inputs_of(given: str | list[Any]) -> tuple[list[str], list[list[int]] | None]:
    """The four forms of `input` as texts, or as token ids. Raises InvalidValue for anything else."""
    if isinstance(given, str):
        return [given], None
    if all(isinstance(each, str) for each in given):
        if "" in given:
            raise InvalidValue("An input must not be empty.", param=f"input[{given.index('')}]")
        return given, None
    if all(_is_token(each) for each in given):
        return [], [given]
    if all(isinstance(each, list) and each and all(map(_is_token, each)) for each in given):
        return [], given
    raise InvalidValue("`input` must be a text, texts, token ids, or lists of token ids.", param="input")


def _is_token(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _written(row: NDArray[Any], as_text: bool) -> str | list[float]:
    if as_text:
        return base64.b64encode(row.astype("<f4").tobytes()).decode("ascii")
    numbers: list[float] = row.tolist()
    return numbers
