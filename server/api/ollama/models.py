"""What models there are, in Ollama's words: `/api/tags`, `/api/show`, `/api/ps`, `/api/version`."""

from hashlib import sha256
from typing import Any

from litestar import Request, post, route
from litestar.enums import HttpMethod

from config.model import LocalModel
from server.api.decode import decode, ignored
from server.api.document import documented
from server.api.models import model_card
from server.api.moment import moment
from server.api.ollama.asked import target_of
from server.api.ollama.wire import (
    OllamaDetails,
    OllamaFault,
    OllamaModel,
    OllamaProcesses,
    OllamaRunning,
    OllamaShown,
    OllamaShowRequest,
    OllamaTags,
    OllamaVersion,
)
from server.api.reply import Reply, json
from server.api.wire_models import ModelCapabilities
from server.errors import InvalidValue
from server.runtime import Runtime, Target

SPOKEN = "0.12.6"
"""The version of Ollama whose API these routes speak; editors refuse servers that are older than they know."""

_READ = [HttpMethod.GET, HttpMethod.HEAD]


@route(
    "/api/tags",
    http_method=_READ,
    status_code=200,
    opt={"needs": "infer"},
    operation_class=documented(
        None, OllamaTags, fault=OllamaFault, summary="List the models (Ollama)", faults=("401", "403", "429")
    ),
)
async def api_tags(request: Request[Any, Any, Any]) -> Reply:
    runtime: Runtime = request.app.state["runtime"]
    return json(OllamaTags([_listed(target) for target in runtime.targets]))


@route(
    "/api/ps",
    http_method=_READ,
    status_code=200,
    opt={"needs": "infer"},
    operation_class=documented(
        None,
        OllamaProcesses,
        fault=OllamaFault,
        summary="List the loaded models (Ollama)",
        faults=("401", "403", "429"),
    ),
)
async def api_ps(request: Request[Any, Any, Any]) -> Reply:
    runtime: Runtime = request.app.state["runtime"]
    here = (runtime.target(name) for name, model in runtime.models.items() if model.state == "ready")
    return json(OllamaProcesses([_running(target) for target in here if not target.forwards]))


@route(
    "/api/version",
    http_method=_READ,
    status_code=200,
    operation_class=documented(None, OllamaVersion, summary="The version of Ollama's API that is spoken", faults=()),
)
async def api_version() -> Reply:
    return json(OllamaVersion(SPOKEN))


@post(
    "/api/show",
    status_code=200,
    opt={"needs": "infer"},
    operation_class=documented(
        OllamaShowRequest, OllamaShown, fault=OllamaFault, summary="Describe one model (Ollama)"
    ),
)
async def api_show(request: Request[Any, Any, Any]) -> Reply:
    asked, unknown = await decode(request, OllamaShowRequest)
    name = asked.model or asked.name
    if not name:
        raise InvalidValue("`model` is missing.", param="model")
    runtime: Runtime = request.app.state["runtime"]
    return json(_shown(target_of(runtime, name)), headers=ignored(unknown))


def _listed(target: Target) -> OllamaModel:
    card = target.model.card
    return OllamaModel(
        name=target.id,
        model=target.id,
        modified_at=moment(target.model.created),
        size=card.weights_bytes if card else 0,
        digest=_digest(target),
        details=_details(target),
    )


def _running(target: Target) -> OllamaRunning:
    card = target.model.card
    size = card.weights_bytes + card.cache_bytes if card else 0
    return OllamaRunning(
        name=target.id,
        model=target.id,
        size=size,
        digest=_digest(target),
        details=_details(target),
        size_vram=size if card and card.device != "cpu" else 0,
        context_length=card.context if card else 0,
    )


def _shown(target: Target) -> OllamaShown:
    card = target.model.card
    family = (card.family if card else "") or target.model.spec.engine
    info: dict[str, Any] = {"general.architecture": family, "general.basename": target.id}
    if card is not None and card.context:  # that of another server's model is not always known
        info[f"{family}.context_length"] = card.context
    if card is not None and card.dimension is not None:
        info[f"{family}.embedding_length"] = card.dimension
    return OllamaShown(
        modelfile=f"# {target.id} is declared in this server's recipe.\nFROM {target.model.name}\n",
        parameters="",
        template=card.template if card and card.template else "",
        details=_details(target),
        model_info=info,
        capabilities=_able(model_card(target).capabilities),
        modified_at=moment(target.model.created),
    )


def _details(target: Target) -> OllamaDetails:
    card, spec = target.model.card, target.model.spec
    weights = ("gguf" if spec.source.is_gguf else "safetensors") if isinstance(spec, LocalModel) else ""
    family = card.family if card else ""
    return OllamaDetails(
        parent_model=target.model.name if target.id != target.model.name else "",
        format=weights,
        family=family,
        families=[family] if family else [],
        parameter_size="",
        quantization_level=card.precision or "" if card else "",
    )


def _digest(target: Target) -> str:
    declared = target.model.spec.model_dump_json()
    if target.assistant is not None:
        declared += target.assistant.model_dump_json()
    return sha256(declared.encode("utf-8")).hexdigest()


def _able(can: ModelCapabilities) -> list[str]:
    words = {
        "completion": can.completion_chat,
        "tools": can.function_calling,
        "insert": can.completion_fim,
        "thinking": can.reasoning,
        "vision": can.vision,
        "embedding": can.embeddings,
    }
    return [word for word, does in words.items() if does]


ROUTES = [api_tags, api_ps, api_version, api_show]
