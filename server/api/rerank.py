"""`/v1/rerank`: documents ordered by how well they answer a query, in the shape of Cohere and Jina."""

from secrets import token_hex
from typing import Any

from litestar import Request, post
from msgspec import UNSET

from server.api.decode import decode, ignored
from server.api.document import documented
from server.api.reply import Reply, json
from server.api.wire import EmbeddingUsage
from server.api.wire_rerank import (
    RerankDocument,
    RerankMeta,
    RerankReply,
    RerankRequest,
    RerankResult,
    RerankTokens,
    RerankVersion,
)
from server.errors import InvalidValue
from server.runtime import Runtime


@post(
    ["/v1/rerank", "/rerank", "/v2/rerank", "/v1/reranking", "/reranking"],
    status_code=200,
    opt={"needs": "infer"},
    operation_class=documented(RerankRequest, RerankReply, summary="Order documents by relevance to a query"),
)
async def rerank(request: Request[Any, Any, Any]) -> Reply:
    asked, unknown = await decode(request, RerankRequest)
    runtime: Runtime = request.app.state["runtime"]
    model = runtime.target(asked.model).model
    # Before the model was loaded once there is no card, and its engine refuses what it cannot do.
    if model.card is not None and model.card.task != "rerank":
        raise InvalidValue(f"The model `{asked.model}` is for {model.card.task}, not for rerank.", param="model")
    texts = [document if isinstance(document, str) else document.text for document in asked.documents]
    found = await model.rerank(asked.query, texts)
    best = sorted(range(len(texts)), key=lambda index: -found.scores[index])[: asked.top_n]
    reply = RerankReply(
        id=f"rerank-{token_hex(16)}",
        model=asked.model,
        results=[
            RerankResult(index, found.scores[index], RerankDocument(texts[index]) if asked.return_documents else UNSET)
            for index in best
        ],
        usage=EmbeddingUsage(found.tokens, found.tokens),
        meta=RerankMeta(RerankVersion("2"), RerankTokens(found.tokens)),
    )
    return json(reply, headers=ignored(unknown))
