"""`/api/embed` and the older `/api/embeddings`: vectors for Ollama's clients."""

import time
from typing import Any

from litestar import Request, post

from server.api.decode import decode, ignored
from server.api.document import documented
from server.api.embeddings import embedded
from server.api.ollama.asked import target_of
from server.api.ollama.wire import (
    OllamaEmbeddingsReply,
    OllamaEmbeddingsRequest,
    OllamaEmbedReply,
    OllamaEmbedRequest,
    OllamaFault,
)
from server.api.reply import Reply, json
from server.api.wire_embeddings import EmbeddingsRequest
from server.runtime import Runtime

_HINTS = ("options", "keep_alive", "truncate")
"""What changes no vector: a text that is too long is refused and never cut."""


@post(
    "/api/embed",
    status_code=200,
    opt={"needs": "infer"},
    operation_class=documented(
        OllamaEmbedRequest, OllamaEmbedReply, fault=OllamaFault, summary="Turn texts into vectors (Ollama)"
    ),
)
async def api_embed(request: Request[Any, Any, Any]) -> Reply:
    arrived = time.perf_counter_ns()
    asked, unknown = await decode(request, OllamaEmbedRequest)
    runtime: Runtime = request.app.state["runtime"]
    target = target_of(runtime, asked.model)
    wanted = EmbeddingsRequest(asked.model, asked.input, dimensions=asked.dimensions)
    found = await embedded(runtime, target, wanted)
    elapsed = time.perf_counter_ns() - arrived
    no_effect = [name for name in _HINTS if getattr(asked, name) is not None]
    return json(
        OllamaEmbedReply(asked.model, found.vectors.tolist(), elapsed, found.tokens),
        headers=ignored(unknown + no_effect),
    )


@post(
    "/api/embeddings",
    status_code=200,
    opt={"needs": "infer"},
    operation_class=documented(
        OllamaEmbeddingsRequest, OllamaEmbeddingsReply, fault=OllamaFault, summary="Turn a text into a vector (Ollama)"
    ),
)
async def api_embeddings(request: Request[Any, Any, Any]) -> Reply:
    asked, unknown = await decode(request, OllamaEmbeddingsRequest)
    runtime: Runtime = request.app.state["runtime"]
    target = target_of(runtime, asked.model)
    found = await embedded(runtime, target, EmbeddingsRequest(asked.model, asked.prompt))
    no_effect = [name for name in ("options", "keep_alive") if getattr(asked, name) is not None]
    return json(OllamaEmbeddingsReply(found.vectors[0].tolist()), headers=ignored(unknown + no_effect))


ROUTES = [api_embed, api_embeddings]
