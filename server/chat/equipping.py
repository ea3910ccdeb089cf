"""What an assistant adds to what a client asked: its knowledge, its system prompt, its tools. Generates nothing."""

import logging

import msgspec

from config.assistant import AssistantSpec
from server.chat.asked import FILE_SEARCH, Asked, Retrieval
from server.errors import CollectionNotFound, InvalidValue, NotPermitted
from server.models.caller import CALLER
from server.models.dialect import Tools
from server.models.engine import Message
from server.models.tool_formats import ToolSpec
from server.runtime import Runtime, Target

log = logging.getLogger(__name__)


def plain(target: Target, asked: Asked) -> bool:
    """Whether there is nothing to add, as for nearly all requests."""
    return target.assistant is None and asked.retrieval is None


async def equipped(runtime: Runtime, target: Target, asked: Asked) -> Asked:
    """`asked` with all that `target` brings along. A bare prompt goes on as it stands, but is a question to the reader.

    Raises NotPermitted where the caller may not search what the request names, ToolUnavailable where a tool does not
    start, InvalidValue where the one that is to be called is not there.
    """
    if asked.prompt is not None:
        if not isinstance(asked.prompt, str) or not quotes(target):
            return asked
        asked = msgspec.structs.replace(asked, messages=[Message("user", asked.prompt)], prompt=None)
    assistant = target.assistant
    retrieval = retrieval_of(runtime, target, asked)
    own = assistant.knowledge if assistant is not None and not target.joined else ()
    if retrieval is not None and not set(retrieval.collections or ()) <= set(own):
        permitted(asked.retrieval.param if asked.retrieval is not None else "model")
    if retrieval is not None:
        await _check(runtime, retrieval)
    elif asked.retrieval is not None and asked.retrieval.when != "never":
        raise CollectionNotFound("This server declares no collections.", param=asked.retrieval.param)
    calls = _may_call(target)
    if retrieval is not None and retrieval.when == "auto" and (not calls or quotes(target)):
        retrieval = msgspec.structs.replace(retrieval, when="always")
    asked = msgspec.structs.replace(
        asked, retrieval=retrieval, system=(assistant.system if assistant is not None else None) or ""
    )
    specs = [] if asked.withhold or not calls else await _own(runtime, assistant, retrieval)
    return _offering(asked, specs)


def retrieval_of(runtime: Runtime, target: Target, asked: Asked) -> Retrieval | None:
    """The knowledge of the turn: what the request says, else what the assistant has.

    A request that asks for knowledge and says not which has the assistant's, or all there is, as /v1/retrieve has it.
    """
    assistant = target.assistant
    declared = assistant.knowledge if assistant is not None else ()
    told = asked.retrieval or Retrieval()
    collections = told.collections or declared or (tuple(runtime.shelves) if asked.retrieval is not None else ())
    if told.when == "never" or not collections:
        return None
    k = told.k if told.k is not None or assistant is None else assistant.k
    return msgspec.structs.replace(told, collections=tuple(collections), k=k)


def permitted(param: str) -> None:
    """Raises NotPermitted where the caller's key opens no search: only the recipe gives knowledge to such a key."""
    if not CALLER.get().opens("retrieve"):
        raise NotPermitted("This key does not have the scope `retrieve`, which naming collections needs.", param=param)


async def _check(runtime: Runtime, retrieval: Retrieval) -> None:
    """Raises CollectionNotFound, KnowledgeUnavailable, or InvalidValue for a filter, before anything is searched.

    A store that a client made lives from its last use.
    """
    for name in retrieval.collections or ():
        try:
            collection = runtime.collection(name)
        except CollectionNotFound as error:
            field = "vector_store_ids" if retrieval.param.startswith("tools") else "collections"
            raise CollectionNotFound(error.message, param=f"{retrieval.param}.{field}") from error
        if retrieval.filters is not None:
            try:
                collection.condition(retrieval.filters)
            except InvalidValue as error:
                raise InvalidValue(error.message, param=f"{retrieval.param}.filters") from error
        if name not in runtime.shelves:
            stores = runtime.vector_stores
            await stores.used(await stores.find(name))


def _may_call(target: Target) -> bool:
    card = target.model.card
    return card is None or "tools" in card.honours


def quotes(target: Target) -> bool:
    """Whether its model reads what was found itself, without a prompt: a search would only keep it from that."""
    return not target.forwards and target.model.dialect() is None


async def _own(runtime: Runtime, assistant: AssistantSpec | None, retrieval: Retrieval | None) -> list[ToolSpec]:
    """The functions that the server runs for this turn."""
    specs = []
    if assistant is not None and assistant.tools:
        tools = await runtime.tools.tools(assistant.tools)
        specs = [ToolSpec(tool.name, dict(tool.parameters), tool.description) for tool in tools]
    if retrieval is not None and retrieval.when == "auto" and all(spec.name != FILE_SEARCH for spec in specs):
        specs.append(_search(retrieval))
    return specs


def _search(retrieval: Retrieval) -> ToolSpec:
    named = ", ".join(retrieval.collections or ())
    parameters = {
        "type": "object",
        "properties": {"query": {"type": "string", "minLength": 1, "description": "What to look for."}},
        "required": ["query"],
        "additionalProperties": False,
    }
    return ToolSpec(FILE_SEARCH, parameters, f"Searches these collections of documents: {named}.")


def _offering(asked: Asked, own: list[ToolSpec]) -> Asked:
    """With the server's functions beside the client's, whose go before where both have one name."""
    theirs = asked.tools or Tools([])
    taken = {spec.name for spec in theirs.specs}
    own = [spec for spec in own if spec.name not in taken]
    if asked.only is not None:
        own = [spec for spec in own if spec.name == asked.only]
        if not own:
            raise InvalidValue(f"`tool_choice` names `{asked.only[:80]}`, which is not there.", param="tool_choice")
    specs = [*theirs.specs, *own]
    if not specs and theirs.forced:
        raise InvalidValue("`tool_choice` asks for a call, and there is no function.", param="tool_choice")
    tools = Tools(specs, theirs.forced, theirs.many) if specs else None
    return msgspec.structs.replace(asked, tools=tools, served=frozenset(spec.name for spec in own))
