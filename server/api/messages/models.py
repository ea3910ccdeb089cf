"""Models as Anthropic's clients list them: `/v1/models` answers so where a request has their header."""

from collections.abc import Iterable

from server.api.messages.wire import AnthropicModel, AnthropicModelList
from server.api.moment import moment
from server.runtime import Target


def anthropic_models(targets: Iterable[Target]) -> AnthropicModelList:
    """All of them on one page."""
    listed = [anthropic_model(target) for target in targets]
    return AnthropicModelList(listed, False, listed[0].id if listed else None, listed[-1].id if listed else None)


def anthropic_model(target: Target) -> AnthropicModel:
    card = target.model.card
    described = target.assistant.description if target.assistant is not None else None
    return AnthropicModel(
        id=target.id,
        display_name=described or target.id,
        created_at=moment(target.model.created),
        max_input_tokens=(card.context or None) if card else None,
    )
