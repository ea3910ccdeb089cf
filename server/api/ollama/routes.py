"""`/api/chat` and `/api/generate`: Ollama's wire over `server.chat`, in lines of JSON unless told otherwise."""

from typing import Any

from litestar import Request, post

from server import chat
from server.api import faults, sse
from server.api.chat_asked import chat_card
from server.api.decode import decode, ignored
from server.api.document import documented
from server.api.ollama.answer import Answer, chat_line, prompt_line
from server.api.ollama.asked import Wanted, of_chat, of_prompt, target_of
from server.api.ollama.wire import (
    OllamaChatReply,
    OllamaChatRequest,
    OllamaFault,
    OllamaGenerateReply,
    OllamaGenerateRequest,
)
from server.api.reply import Direct, json
from server.api.turns import admit
from server.runtime import Runtime, Target

_LINES = "application/x-ndjson"
_FRAMING = sse.Framing(_LINES, b"", lambda error: faults.ollama_body(error) + b"\n")
"""Clients read every line as JSON, so a stream has no sign of life between them."""


@post(
    "/api/chat",
    status_code=200,
    opt={"needs": "infer"},
    operation_class=documented(
        OllamaChatRequest,
        OllamaChatReply,
        stream=OllamaChatReply,
        stream_type=_LINES,
        fault=OllamaFault,
        summary="Answer a conversation (Ollama)",
    ),
)
async def api_chat(request: Request[Any, Any, Any]) -> Direct:
    asked, unknown = await decode(request, OllamaChatRequest)
    runtime: Runtime = request.app.state["runtime"]
    target = target_of(runtime, asked.model)
    answer = Answer(asked.model, chat_line)
    wanted = of_chat(asked, target)
    if not asked.messages:
        return await _loaded(answer, target)
    return await _answered(answer, runtime, target, wanted, unknown, stream=asked.stream)


@post(
    "/api/generate",
    status_code=200,
    opt={"needs": "infer"},
    operation_class=documented(
        OllamaGenerateRequest,
        OllamaGenerateReply,
        stream=OllamaGenerateReply,
        stream_type=_LINES,
        fault=OllamaFault,
        summary="Go on with a prompt (Ollama)",
    ),
)
async def api_generate(request: Request[Any, Any, Any]) -> Direct:
    asked, unknown = await decode(request, OllamaGenerateRequest)
    runtime: Runtime = request.app.state["runtime"]
    target = target_of(runtime, asked.model)
    answer = Answer(asked.model, prompt_line)
    wanted = await of_prompt(asked, target)
    if not asked.prompt:
        return await _loaded(answer, target)
    return await _answered(answer, runtime, target, wanted, unknown, stream=asked.stream)


async def _loaded(answer: Answer, target: Target) -> Direct:
    chat_card(target)
    await target.model.load()
    await target.model.ready()
    return json(answer.loaded())


async def _answered(
    answer: Answer, runtime: Runtime, target: Target, wanted: Wanted, unknown: list[str], *, stream: bool
) -> Direct:
    answer.thinks = wanted.thinks is not False
    turn = chat.turn(runtime, target, wanted.asked)
    (started,) = await admit([turn])
    answer.taken()
    headers = ignored(unknown + wanted.ignored)
    if stream:
        return sse.EventStream(answer.lines(turn, started), headers, _FRAMING)
    return json(await answer.whole(turn, started), headers=headers)


ROUTES = [api_chat, api_generate]
