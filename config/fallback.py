"""The `fallback` key of a model: which one answers instead, and whether those of all models agree."""

from collections.abc import Iterator, Mapping
from typing import Annotated

from pydantic import BeforeValidator, Field

from config.document import Problem
from config.fault import KeyPath, nearest
from config.section import Count, Name, Section, shown


class Fallback(Section):
    """Where requests go that this model cannot take."""

    to: Name = Field(
        description="The model that answers instead: a name under models, for the same task. That of an embedding "
        "model has to be the same model elsewhere, for vectors of another cannot be compared with its own."
    )
    queue: Count | None = Field(
        default=None,
        description="Go over when this many requests are in this model, and come back at half of them; none goes over "
        "only while it is full.",
    )


def _short(value: object) -> object:
    """The short form is the name alone."""
    return {"to": value} if isinstance(value, str) else value


FallbackTo = Annotated[Fallback, BeforeValidator(_short, json_schema_input_type=Name | Fallback)]
"""A name, or a Fallback."""


# ---- all models together --------------------------------------------------------------------------------------------


def fallbacks(models: Mapping[str, Mapping[str, object]], tasks: Mapping[str, object]) -> Iterator[Problem]:
    """What is wrong with them. Reads plain values, as `config.recipe.disagreements` does; `tasks` by model name."""
    chosen = {name: found for name, spec in models.items() if (found := _chosen(spec)) is not None}
    told: set[str] = set()
    for name, (other, key) in chosen.items():
        path: KeyPath = ("models", name, *key)
        if other not in models:
            fit = [model for model in models if tasks.get(model) == tasks.get(name) and model != name]
            yield Problem(path, f"no model is named {shown(other)}", nearest(other, fit))
        elif None not in (tasks.get(name), tasks.get(other)) and tasks[other] != tasks[name]:
            yield Problem(path, f"models.{other} is for {tasks[other]}, and this model for {tasks[name]}")
        elif name not in told and name in (circle := _circle(name, chosen)):
            told |= set(circle)
            yield Problem(path, f"comes back to where it began: {' -> '.join([*circle, name])}")


def _chosen(spec: Mapping[str, object]) -> tuple[str, KeyPath] | None:
    """The name, and the keys that lead to it."""
    match spec.get("fallback"):
        case str(name):
            return name, ("fallback",)
        case {"to": str(name)}:
            return name, ("fallback", "to")
        case _:
            return None


def _circle(name: str, chosen: Mapping[str, tuple[str, KeyPath]]) -> list[str]:
    """The models on the way from `name` back to it; empty where the way ends, or turns in a circle without it."""
    way = [name]
    while way[-1] in chosen:
        following = chosen[way[-1]][0]
        if following == name:
            return way
        if following in way:
            return []
        way.append(following)
    return []
