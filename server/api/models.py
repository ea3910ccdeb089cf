"""`/v1/models`: what this server has, with the true context of each, and what each can do."""

from typing import Any, Literal

from litestar import Request, route
from litestar.enums import HttpMethod

from server.api.document import documented
from server.api.messages.models import anthropic_model, anthropic_models
from server.api.messages.wire import ANTHROPIC, AnthropicModel, AnthropicModelList
from server.api.reply import Reply, json
from server.api.wire_models import ModelArchitecture, ModelCapabilities, ModelCard, ModelList, ModelMeta, ModelStatus
from server.errors import InvalidValue
from server.models.engine import Card
from server.models.model import Model
from server.models.reasoning import CLOSING
from server.models.resident import State
from server.models.served import Served
from server.runtime import Runtime, Target

_READ = [HttpMethod.GET, HttpMethod.HEAD]
_WORDS: dict[State, Literal["loaded", "loading", "unloaded"]] = {
    "ready": "loaded",
    "loading": "loading",
    "stopped": "unloaded",
    "failed": "unloaded",
}
_ALWAYS = frozenset({"max_tokens", "stop", "stream"})
"""Parameters that Hearth honours itself, whatever the engine."""
_OURS = frozenset({"draft", "echo", "prompt_logprobs", "images", "parts"})
"""Abilities that are no parameters of a chat."""


@route(
    ["/v1/models", "/models"],
    http_method=_READ,
    status_code=200,
    opt={"needs": "infer"},
    operation_class=documented(
        None, ModelList | AnthropicModelList, summary="List the models", faults=("401", "403", "429")
    ),
)
async def list_models(request: Request[Any, Any, Any]) -> Reply:
    runtime: Runtime = request.app.state["runtime"]
    if ANTHROPIC in request.headers:
        return json(anthropic_models(runtime.targets))
    listed = ModelList("list", [model_card(target) for target in runtime.targets])
    return json(listed)


@route(
    ["/v1/models/{model_id:path}", "/models/{model_id:path}"],
    http_method=_READ,
    status_code=200,
    opt={"needs": "infer"},
    operation_class=documented(
        None, ModelCard | AnthropicModel, summary="Describe one model", faults=("400", "401", "403", "404", "429")
    ),
)
async def show_model(request: Request[Any, Any, Any], model_id: str) -> Reply:
    runtime: Runtime = request.app.state["runtime"]
    target = runtime.target(model_id.removeprefix("/"))
    return json(anthropic_model(target) if ANTHROPIC in request.headers else model_card(target))


def chosen(runtime: Runtime, model_id: str | None, task: str = "chat") -> Target:
    """What `model_id` names, or where a request names none, the only model for `task` there is.

    Raises ModelNotFound, or InvalidValue where the name is missing and there is not exactly one.
    """
    if model_id is not None:
        return runtime.target(model_id)
    able = [name for name, model in runtime.models.items() if model.spec.task == task]
    if len(able) != 1:
        have = f"{len(able)} {task} models: {', '.join(sorted(able))}" if able else f"no {task} model"
        raise InvalidValue(f"`model` is missing, and this server has {have}.", param="model")
    return runtime.target(able[0])


def model_card(target: Target) -> ModelCard:
    model, assistant = target.model, target.assistant
    card = model.card
    described = assistant.description if assistant and assistant.description else card.description if card else None
    context = (card.context or None) if card else None
    return ModelCard(
        id=target.id,
        object="model",
        created=model.created,
        owned_by="hearth",
        root=model.name,
        name=target.id,
        aliases=[] if assistant else [name for name in (model.name, *model.spec.aliases) if name != target.id],
        task=model.spec.task,
        engine=card.engine if card else model.spec.engine,
        engine_reason=card.reason if card else None,
        state=model.state,
        status=model_status(model),
        description=described,
        context_length=context,
        max_model_len=context,
        max_context_length=context,
        dimensions=card.dimension if card else None,
        capabilities=_capabilities(model.spec.task, card),
        supported_parameters=_parameters(card),
        architecture=_architecture(model.spec.task, card),
        meta=ModelMeta(card.context, card.weights_bytes, card.dimension) if card and context else None,
        knowledge=list(assistant.knowledge) if assistant else [],
    )


def model_status(model: Served) -> ModelStatus:
    """The state in the words of llama.cpp's router, which has none for a model that could not be loaded."""
    status = ModelStatus(_WORDS[model.state])
    if model.state == "failed":
        status.failed, status.error = True, model.error
    if model.state == "loading" and model.progress:
        status.progress = model.progress
    if isinstance(model, Model) and model.state != "ready":
        status.cold = model.is_cold
    return status


def _capabilities(task: str, card: Card | None) -> ModelCapabilities:
    honours = card.honours if card else frozenset()
    chats = task == "chat"
    return ModelCapabilities(
        completion_chat=chats and (card is None or not card.rendered or card.template is not None),
        completion_fim="suffix" in honours,
        function_calling="tools" in honours,
        structured_outputs="response_format" in honours,
        reasoning=card is not None and _reasons(card),
        logprobs="logprobs" in honours,
        vision="images" in honours,
        audio="audio" in honours,
        embeddings=task == "embed",
        rerank=task == "rerank",
    )


def _reasons(card: Card) -> bool:
    """Whether the model marks what it thinks, by its template or its vocabulary."""
    return CLOSING in (card.template or "") or CLOSING in card.control


def _parameters(card: Card | None) -> list[str]:
    if card is None or card.task != "chat":
        return []
    return sorted(card.honours - _OURS | _ALWAYS)


def _architecture(task: str, card: Card | None) -> ModelArchitecture:
    honours = card.honours if card else frozenset()
    reads = ["text"] + [word for word, ability in (("image", "images"), ("audio", "audio")) if ability in honours]
    return ModelArchitecture(reads, {"embed": ["embeddings"], "rerank": ["scores"]}.get(task, ["text"]))
