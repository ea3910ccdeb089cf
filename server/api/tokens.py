"""Texts as token ids and back, and conversations as the prompts they become: vLLM's and llama.cpp's routes for both.

`/tokenize` takes either one's body; where their defaults differ, the field that carries the text decides whose count.
"""

import asyncio
from typing import Annotated, Any

import msgspec
from litestar import Request, post
from msgspec import UNSET, Meta, UnsetType

from server.api.attached import unsearched
from server.api.chat_asked import asked_of
from server.api.decode import decode, ignored
from server.api.document import documented
from server.api.models import chosen
from server.api.reply import Reply, json
from server.api.wire import ChatMessage, ChatRequest, Name
from server.chat import check_parts
from server.errors import InvalidValue, UnsupportedParameter
from server.models.engine import Tokens
from server.runtime import Target

TokenId = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Messages = Annotated[list[ChatMessage], Meta(min_length=1)]


class _Conversation(msgspec.Struct, kw_only=True):
    """What a conversation is rendered with, as in a chat request."""

    model: Name | None = None
    tools: list[dict[str, Any]] | None = None
    add_generation_prompt: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None


class TokenizeRequest(_Conversation, kw_only=True):
    """One of `prompt` (vLLM's), `content` (llama.cpp's) and `messages`. `model` may be left out where there is only one
    chat model.

    `add_special_tokens`, or `add_special`, puts before the text what the model begins with, as it is when the text is
    a prompt; left out it is true, for `content` false. Without `parse_special` control tokens' texts are letters.
    `with_pieces` gives each token with its text, `return_token_strs` the texts by themselves.
    """

    prompt: str | None = None
    content: str | None = None
    messages: Messages | None = None
    add_special_tokens: bool | None = None
    add_special: bool | None = None
    parse_special: bool | None = None
    with_pieces: bool | None = None
    return_token_strs: bool | None = None


class Piece(msgspec.Struct):
    """A token and its text, or its bytes where these are no text by themselves."""

    id: int
    piece: str | list[int]


class TokenizeReply(msgspec.Struct):
    """`count` is how many tokens of the model's context, `max_model_len`, the text takes."""

    tokens: list[int | Piece]
    count: int
    max_model_len: int
    token_strs: list[str] | UnsetType = UNSET


class DetokenizeRequest(msgspec.Struct):
    tokens: list[TokenId]
    model: Name | None = None


class DetokenizeReply(msgspec.Struct):
    """The same text twice: `prompt` is vLLM's name for it, `content` llama.cpp's."""

    prompt: str
    content: str


class ApplyTemplateRequest(_Conversation, kw_only=True):
    messages: Messages


class ApplyTemplateReply(msgspec.Struct):
    """What the model would read, knowledge left out."""

    prompt: str


@post(
    ["/v1/tokenize", "/tokenize"],
    status_code=200,
    opt={"needs": "infer"},
    operation_class=documented(TokenizeRequest, TokenizeReply, summary="A text or a conversation as token ids"),
)
async def tokenize(request: Request[Any, Any, Any]) -> Reply:
    asked, unknown = await decode(request, TokenizeRequest)
    target = chosen(request.app.state["runtime"], asked.model)
    text = await _text(target, asked)
    special = asked.add_special_tokens if asked.add_special_tokens is not None else asked.add_special
    pieces = bool(asked.with_pieces or asked.return_token_strs)
    told = await target.model.tokenize(
        text,
        add_special=asked.content is None if special is None else special,
        parse_special=asked.parse_special is not False,
        pieces=pieces,
    )
    card = target.model.card
    assert card is not None, "a model that has answered has a card"
    reply = TokenizeReply(_pieces(told) if asked.with_pieces else [*told.ids], len(told.ids), card.context)
    if asked.return_token_strs:
        reply.token_strs = [piece.decode(errors="replace") for piece in told.pieces]
    return json(reply, headers=ignored(unknown))


@post(
    ["/v1/detokenize", "/detokenize"],
    status_code=200,
    opt={"needs": "infer"},
    operation_class=documented(DetokenizeRequest, DetokenizeReply, summary="What token ids say"),
)
async def detokenize(request: Request[Any, Any, Any]) -> Reply:
    asked, unknown = await decode(request, DetokenizeRequest)
    target = chosen(request.app.state["runtime"], asked.model)
    text = await target.model.detokenize(asked.tokens)
    return json(DetokenizeReply(text, text), headers=ignored(unknown))


@post(
    ["/v1/apply-template", "/apply-template"],
    status_code=200,
    opt={"needs": "infer"},
    operation_class=documented(ApplyTemplateRequest, ApplyTemplateReply, summary="A conversation as its prompt"),
)
async def apply_template(request: Request[Any, Any, Any]) -> Reply:
    asked, unknown = await decode(request, ApplyTemplateRequest)
    target = chosen(request.app.state["runtime"], asked.model)
    return json(ApplyTemplateReply(await _rendered(target, asked, asked.messages)), headers=ignored(unknown))


ROUTES = [tokenize, detokenize, apply_template]


async def _text(target: Target, asked: TokenizeRequest) -> str:
    """The one text the request brings. Raises InvalidValue where that are more or none."""
    given = [each for each in (asked.prompt, asked.content, asked.messages) if each is not None]
    if len(given) != 1:
        raise InvalidValue("Send exactly one of `prompt`, `content` and `messages`.", param="prompt")
    if asked.messages is not None:
        return await _rendered(target, asked, asked.messages)
    return asked.prompt if asked.prompt is not None else asked.content or ""


async def _rendered(target: Target, asked: _Conversation, messages: list[ChatMessage]) -> str:
    """The prompt of a conversation. Raises where the model has no template, or refuses the messages."""
    dialect = target.model.dialect()
    if dialect is None:
        raise UnsupportedParameter(
            f"The model `{target.id}` takes messages as they are: it has no template.", param="messages"
        )
    options = dict(asked.chat_template_kwargs or {})
    if asked.add_generation_prompt is not None:
        options["add_generation_prompt"] = asked.add_generation_prompt
    tools = unsearched(asked.tools)
    request = ChatRequest(model=target.id, messages=messages, tools=tools, chat_template_kwargs=options)
    spoken = asked_of(request, target)
    check_parts(target, spoken.messages, pictures=False)
    # The event loop never computes, and a conversation may be as long as a request.
    return await asyncio.to_thread(dialect.render, spoken.messages, spoken.tools, spoken.options)


def _pieces(told: Tokens) -> list[int | Piece]:
    return [Piece(token, _readable(piece)) for token, piece in zip(told.ids, told.pieces, strict=True)]


def _readable(piece: bytes) -> str | list[int]:
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return list(piece)
