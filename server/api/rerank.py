"""`/v1/rerank` and `/v1/score`: how well documents answer a query, in the shapes of Cohere, Jina, TEI and vLLM."""

import time
from secrets import token_hex
from typing import Any

import msgspec
from litestar import Request, post
from msgspec import UNSET

from server.api.decode import decode, ignored
from server.api.document import documented
from server.api.models import chosen
from server.api.reply import Reply, json
from server.api.wire_embeddings import EmbeddingUsage
from server.api.wire_rerank import (
    RankedText,
    RerankDocument,
    RerankMeta,
    RerankReply,
    RerankRequest,
    RerankResult,
    RerankTokens,
    RerankVersion,
    Score,
    ScoreReply,
    ScoreRequest,
)
from server.errors import InvalidValue, UnsupportedParameter
from server.models.model import Reranked
from server.routing import Needs, answered
from server.runtime import Runtime, Target

_json = msgspec.json.Encoder()


@post(
    ["/v1/rerank", "/rerank", "/v2/rerank", "/v1/reranking", "/reranking"],
    status_code=200,
    opt={"needs": "infer"},
    operation_class=documented(
        RerankRequest, RerankReply | list[RankedText], summary="Order documents by relevance to a query"
    ),
)
async def rerank(request: Request[Any, Any, Any]) -> Reply:
    asked, unknown = await decode(request, RerankRequest)
    runtime: Runtime = request.app.state["runtime"]
    target = _reranker(runtime, asked.model)
    texts = _texts(asked)
    found = await _ranked(runtime, target, [(asked.query, texts)])
    best = sorted(range(len(texts)), key=lambda index: -found.scores[index])[: asked.top_n]
    reply = _as_tei(asked, texts, found, best) if asked.documents is None else _whole(asked, target, texts, found, best)
    return Reply(_json.encode(reply), headers=ignored(unknown))


def _reranker(runtime: Runtime, model_id: str | None) -> Target:
    """Raises where it is none. Before the model was loaded once there is no card, and its engine refuses instead."""
    target = chosen(runtime, model_id, "rerank")
    card = target.model.card
    if card is not None and card.task != "rerank":
        raise InvalidValue(f"The model `{target.id}` is for {card.task}, not for rerank.", param="model")
    return target


async def _ranked(runtime: Runtime, target: Target, rounds: list[tuple[str, list[str]]]) -> Reranked:
    """All scores, in one row; by one model, for those of two cannot be compared."""

    async def all_by(one: Target) -> Reranked:
        found = [await one.model.rerank(query, texts) for query, texts in rounds]
        return Reranked([score for each in found for score in each.scores], sum(each.tokens for each in found))

    return await answered(runtime, target, Needs(lambda card: True), all_by)


def _texts(asked: RerankRequest) -> list[str]:
    if asked.raw_scores:
        raise UnsupportedParameter("Scores are told from 0 to 1, not raw.", param="raw_scores")
    if asked.documents is not None and asked.texts is not None:
        raise InvalidValue("Send `documents` or `texts`, not both.", param="texts")
    if asked.texts is not None:
        return asked.texts
    if asked.documents is None:
        raise InvalidValue("`documents` is missing.", param="documents")
    return [document if isinstance(document, str) else document.text for document in asked.documents]


def _whole(asked: RerankRequest, target: Target, texts: list[str], found: Reranked, best: list[int]) -> RerankReply:
    shows = asked.return_documents or asked.return_text
    return RerankReply(
        id=f"rerank-{token_hex(16)}",
        model=asked.model or target.id,
        results=[
            RerankResult(index, found.scores[index], RerankDocument(texts[index]) if shows else UNSET) for index in best
        ],
        usage=EmbeddingUsage(found.tokens, found.tokens),
        meta=RerankMeta(RerankVersion("2"), RerankTokens(found.tokens)),
    )


def _as_tei(asked: RerankRequest, texts: list[str], found: Reranked, best: list[int]) -> list[RankedText]:
    shows = asked.return_documents or asked.return_text
    return [RankedText(index, found.scores[index], texts[index] if shows else UNSET) for index in best]


@post(
    ["/v1/score", "/score"],
    status_code=200,
    opt={"needs": "infer"},
    operation_class=documented(ScoreRequest, ScoreReply, summary="How well one text answers another"),
)
async def score(request: Request[Any, Any, Any]) -> Reply:
    asked, unknown = await decode(request, ScoreRequest)
    runtime: Runtime = request.app.state["runtime"]
    target = _reranker(runtime, asked.model)
    queries = [asked.text_1] if isinstance(asked.text_1, str) else asked.text_1
    texts = [asked.text_2] if isinstance(asked.text_2, str) else asked.text_2
    if len(queries) == 1:
        rounds = [(queries[0], texts)]
    elif len(queries) == len(texts):
        rounds = [(query, [text]) for query, text in zip(queries, texts, strict=True)]
    else:
        message = f"`text_1` has {len(queries)} texts and `text_2` {len(texts)}: one for all of them, or as many."
        raise InvalidValue(message, param="text_2")
    found = await _ranked(runtime, target, rounds)
    reply = ScoreReply(
        id=f"score-{token_hex(16)}",
        object="list",
        created=int(time.time()),
        model=asked.model or target.id,
        data=[Score(index, "score", each) for index, each in enumerate(found.scores)],
        usage=EmbeddingUsage(found.tokens, found.tokens),
    )
    return json(reply, headers=ignored(unknown))


ROUTES = [rerank, score]
