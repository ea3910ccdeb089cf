"""`/v1/models`: what this server has, with the true context of each."""

from typing import Any

from litestar import Request, route
from litestar.enums import HttpMethod

from server.api.document import documented
from server.api.reply import Reply, json
from server.api.wire import ModelCard, ModelList
from server.runtime import Runtime, Target

_READ = [HttpMethod.GET, HttpMethod.HEAD]


@route(
    ["/v1/models", "/models"],
    http_method=_READ,
    status_code=200,
    opt={"needs": "infer"},
    operation_class=documented(None, ModelList, summary="List the models", faults=("401", "403")),
)
async def list_models(request: Request[Any, Any, Any]) -> Reply:
    runtime: Runtime = request.app.state["runtime"]
    listed = ModelList("list", [model_card(target) for target in runtime.targets])
    return json(listed)


@route(
    ["/v1/models/{model_id:path}", "/models/{model_id:path}"],
    http_method=_READ,
    status_code=200,
    opt={"needs": "infer"},
    operation_class=documented(None, ModelCard, summary="Describe one model", faults=("400", "401", "403", "404")),
)
async def show_model(request: Request[Any, Any, Any], model_id: str) -> Reply:
    runtime: Runtime = request.app.state["runtime"]
    return json(model_card(runtime.target(model_id.removeprefix("/"))))


def model_card(target: Target) -> ModelCard:
    model, assistant = target.model, target.assistant
    card = model.card
    described = assistant.description if assistant and assistant.description else card.description if card else None
    return ModelCard(
        id=target.id,
        object="model",
        created=model.created,
        owned_by="hearth",
        root=model.name,
        task=model.spec.task,
        engine=card.engine if card else model.spec.engine,
        engine_reason=card.reason if card else None,
        state=model.state,
        description=described,
        context_length=card.context if card else None,
        max_model_len=card.context if card else None,
        knowledge=list(assistant.knowledge) if assistant else [],
    )
