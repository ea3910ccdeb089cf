"""`/v1/embeddings`: vectors as numbers or as base64, which every OpenAI SDK asks for unless told otherwise."""

import base64
from typing import Any

from litestar import Request, post
from numpy.typing import NDArray

from server.api.decode import decode, ignored
from server.api.document import documented
from server.api.reply import Reply, json
from server.api.wire import Embedding, EmbeddingList, EmbeddingsRequest, EmbeddingUsage
from server.errors import InvalidValue, UnsupportedParameter
from server.models.engine import Card
from server.runtime import Runtime


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
    texts, tokens = inputs_of(asked.input)
    _check(asked, target.model.card)
    found = await (target.model.embed(texts) if tokens is None else target.model.embed_tokens(tokens))
    as_text = asked.encoding_format == "base64"
    reply = EmbeddingList(
        object="list",
        data=[Embedding("embedding", index, _written(row, as_text)) for index, row in enumerate(found.vectors)],
        model=asked.model,
        usage=EmbeddingUsage(found.tokens, found.tokens),
    )
    no_effect = ["user"] if asked.user is not None else []
    return json(reply, headers=ignored(unknown + no_effect))


def _check(asked: EmbeddingsRequest, card: Card | None) -> None:
    if card is None:
        return
    if card.task != "embed":
        raise InvalidValue(f"The model `{asked.model}` is for {card.task}, not for embeddings.", param="model")
    if asked.dimensions not in (None, card.dimension):
        raise UnsupportedParameter(
            f"The model `{asked.model}` has {card.dimension} dimensions and was not trained to be cut.",
            param="dimensions",
        )


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
