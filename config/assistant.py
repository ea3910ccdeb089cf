"""The `assistants` section: model ids that bundle a chat model with knowledge, tools, a system prompt and defaults."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from config.section import (
    Count,
    Fraction,
    Hits,
    Name,
    Penalty,
    Repetition,
    Rounds,
    Section,
    Temperature,
    Whole,
)


class Defaults(Section):
    """What holds where a request says nothing; what it says goes before."""

    temperature: Temperature | None = Field(
        default=None, description="How freely tokens are chosen, 0 to 2; 0 takes the likeliest."
    )
    top_p: Fraction | None = Field(default=None, description="Choose among the likeliest with this much probability.")
    top_k: Whole | None = Field(default=None, description="Choose among so many of the likeliest; 0 for all.")
    min_p: Fraction | None = Field(
        default=None, description="Leave out what is less likely than this share of the likeliest."
    )
    presence_penalty: Penalty | None = Field(default=None, description="Against what was said already, -2 to 2.")
    frequency_penalty: Penalty | None = Field(
        default=None, description="Against what was said already, by how often, -2 to 2."
    )
    repetition_penalty: Repetition | None = Field(
        default=None, description="Against what stands in prompt or answer; 1 changes nothing."
    )
    seed: Whole | None = Field(default=None, description="Where choosing begins: the same seed gives the same answer.")
    max_tokens: Count | None = Field(
        default=None, description="The most tokens an answer has, all rounds of tools together."
    )

    def said(self) -> Mapping[str, Any]:
        """Those that are set, by name."""
        return {name: value for name, value in self.model_dump().items() if value is not None}


class AssistantSpec(Section):
    """A chat model with knowledge, tools and a system prompt attached, picked by clients like any model."""

    model: Name = Field(description="The chat model that answers: a name under models.")
    knowledge: tuple[Name, ...] = Field(
        default=(), description="The collections it answers from: names under knowledge."
    )
    k: Hits | None = Field(
        default=None, description="How many chunks each turn is given; none takes each collection's search.k."
    )
    tools: tuple[Name, ...] = Field(
        default=(), description="The tools it may call, which the server runs: names under tools."
    )
    rounds: Rounds = Field(
        default=8,
        description="How often in one turn the model may call tools; then it has to answer without them.",
    )
    system: str | None = Field(
        default=None, min_length=1, description="What its system message begins with, before the client's own."
    )
    defaults: Defaults = Field(
        default=Defaults(), description="Sampling and length where a request does not say otherwise."
    )
    description: str | None = Field(default=None, description="What it is for, shown in the list of models.")
