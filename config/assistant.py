"""The `assistants` section: model ids that answer from knowledge."""

from pydantic import Field

from config.section import Hits, Name, Section


class AssistantSpec(Section):
    """A chat model with knowledge attached, picked by clients like any model."""

    model: Name = Field(description="The chat model that answers: a name under models.")
    knowledge: tuple[Name, ...] = Field(
        default=(), description="The collections it answers from: names under knowledge."
    )
    k: Hits | None = Field(
        default=None, description="How many chunks each turn is given; none takes each collection's search.k."
    )
    description: str | None = Field(default=None, description="What it is for, shown in the list of models.")
