"""The recipe: its sections under one root, and what they have to agree on. Knows no files but the paths it holds."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PrivateAttr, ValidationInfo, model_validator
from pydantic_core import PydanticCustomError

from config.assistant import AssistantSpec
from config.contradiction import TASKS, Task, contradictions
from config.document import Problem
from config.fallback import fallbacks
from config.fault import KeyPath, nearest
from config.key import doubles
from config.knowledge import CollectionSpec
from config.model import DEFAULTS, ModelEntry
from config.policy import PoliciesSpec
from config.section import FROZEN, Name, Origin, Outside, Section, ToolName, shown, wrong
from config.server import ServerSpec
from config.tool import LONGEST_SERVER, ToolEntry

_CALL_NOTHING = ("echo",)
"""Engines whose models never call a tool."""

DISAGREE = "disagree"
"""The type of the pydantic error that stands for every Problem of `disagreements`."""


def _first_version(value: object) -> object:
    if isinstance(value, bool) or str(value) != "1" or not isinstance(value, int | Outside):
        raise wrong("should be 1, the only version there is")
    return 1


class Recipe(Section):
    """A deployment as a frozen value. Equal recipes deploy equal things; `load` makes one from a file."""

    version: Annotated[Literal[1], BeforeValidator(_first_version)] = Field(
        description="The version of the recipe format: 1."
    )
    server: ServerSpec = Field(
        default_factory=dict, validate_default=True, description="Where Hearth listens, who may ask, how much at once."
    )
    models: Annotated[Mapping[Name, ModelEntry], *FROZEN] = Field(
        default_factory=dict, validate_default=True, description="The models, each under the id that clients use."
    )
    knowledge: Annotated[Mapping[Name, CollectionSpec], *FROZEN] = Field(
        default_factory=dict, validate_default=True, description="The collections of documents, each under its name."
    )
    assistants: Annotated[Mapping[Name, AssistantSpec], *FROZEN] = Field(
        default_factory=dict,
        validate_default=True,
        description="Chat models with knowledge and tools attached, each under the id that clients use.",
    )
    tools: Annotated[Mapping[ToolName, ToolEntry], *FROZEN] = Field(
        default_factory=dict,
        validate_default=True,
        description="Functions that models may call, each under the name that assistants use.",
    )
    policies: PoliciesSpec = Field(
        default_factory=dict, validate_default=True, description="What the server does by itself, at its times."
    )
    _origin: Origin = PrivateAttr(default=Origin(Path("recipe.yaml")))

    @model_validator(mode="after")
    def _sections_agree(self, info: ValidationInfo) -> "Recipe":
        if isinstance(info.context, Origin):
            self._origin = info.context
        tree = self.model_dump()
        for shown_key, key in zip(tree["server"]["keys"], self.server.keys, strict=True):
            if key.secret is not None:
                shown_key["secret"] = key.secret.get_secret_value()  # dumped as ***, which would make all equal
        if problems := [problem.message for problem in disagreements(tree)]:
            raise PydanticCustomError(DISAGREE, "{problems}", {"problems": "; ".join(problems)})
        return self

    @property
    def path(self) -> Path:
        """The file it was read from, absolute."""
        return self._origin.file

    @property
    def origin(self) -> Origin:
        """What it was read from, so that it can be read again."""
        return self._origin

    @property
    def digest(self) -> str:
        """SHA-256, in hex, of the recipe as `redacted` shows it: the same text of a secret or another, same digest."""
        text = json.dumps(self.redacted(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode("utf-8")).hexdigest()

    def redacted(self) -> dict[str, Any]:
        """The resolved recipe as plain JSON values, every default filled in, secrets as "***"."""
        return self.model_dump(mode="json")


# ---- what sections have to agree on ---------------------------------------------------------------------------------


def disagreements(tree: object) -> Iterator[Problem]:
    """What is wrong between keys that are each right by themselves.

    Reads plain values (dict, list, text) and passes over what has the wrong shape, so that it can speak beside the
    faults of single keys and not only after they are mended.
    """
    yield from _clashing_ids(tree)
    yield from _doubled_keys(tree)
    for name, spec in _entries(tree, "models"):
        for each in contradictions(spec, DEFAULTS):
            yield Problem(("models", name, each.key), each.message, each.suggestion)
    models = dict(_entries(tree, "models"))
    yield from fallbacks(models, {name: _task(spec) for name, spec in models.items()})
    for name, spec in _entries(tree, "knowledge"):
        yield from _unresolved_model(tree, ("knowledge", name, "embed"), spec.get("embed"), "embed")
        search = spec.get("search")
        rerank = search.get("rerank") if isinstance(search, Mapping) else None
        yield from _unresolved_model(tree, ("knowledge", name, "search", "rerank"), rerank, "rerank")
    for name, spec in _entries(tree, "assistants"):
        yield from _unresolved_model(tree, ("assistants", name, "model"), spec.get("model"), "chat")
        yield from _unresolved(tree, ("assistants", name, "knowledge"), spec.get("knowledge"), "collection")
        yield from _unresolved(tree, ("assistants", name, "tools"), spec.get("tools"), "tool")
        yield from _callless(tree, name, spec)
    for name, spec in _entries(tree, "tools"):
        yield from _unresolved(tree, ("tools", name, "retrieve"), spec.get("retrieve"), "collection")
        if "mcp" in spec and len(name) > LONGEST_SERVER:
            message = f"the name of an MCP server has at most {LONGEST_SERVER} characters, this one has {len(name)}"
            yield Problem(("tools", name), message)
    tiering = dict(_entries(tree, "policies")).get("tiering", {})
    yield from _unresolved(tree, ("policies", "tiering", "collections"), tiering.get("collections"), "collection")


def _names(tree: object, section: str) -> list[str]:
    found = tree.get(section) if isinstance(tree, Mapping) else None
    return [str(name) for name in found] if isinstance(found, Mapping) else []


def _entries(tree: object, section: str) -> Iterator[tuple[str, Mapping[str, object]]]:
    for name in _names(tree, section):
        spec = tree[section][name] if isinstance(tree, Mapping) else None
        if isinstance(spec, Mapping):
            yield name, spec


def _items(value: object) -> Iterator[tuple[int, object]]:
    return iter(enumerate(value)) if isinstance(value, list | tuple) else iter(())


def _clashing_ids(tree: object) -> Iterator[Problem]:
    taken: dict[str, str] = {}
    for model in _names(tree, "models"):
        taken[model] = f"models.{model}"
    for model, spec in _entries(tree, "models"):
        for position, alias in _items(spec.get("aliases")):
            if isinstance(alias, str):
                path: KeyPath = ("models", model, "aliases", position)
                yield from _claim(taken, alias, path, f"an alias of models.{model}")
    for name in _names(tree, "assistants"):
        yield from _claim(taken, name, ("assistants", name), f"assistants.{name}")


def _claim(taken: dict[str, str], wanted: str, path: KeyPath, owner: str) -> Iterator[Problem]:
    if wanted in taken:
        yield Problem(path, f"the id {shown(wanted)} is taken by {taken[wanted]}")
    taken.setdefault(wanted, owner)


def _doubled_keys(tree: object) -> Iterator[Problem]:
    server = tree.get("server") if isinstance(tree, Mapping) else None
    keys = server.get("keys") if isinstance(server, Mapping) else None
    declared = {position: key for position, key in _items(keys) if isinstance(key, Mapping)}
    for position, part, message in doubles(declared):
        yield Problem(("server", "keys", position, part), message)


def _unresolved_model(tree: object, path: KeyPath, name: object, task: Task) -> Iterator[Problem]:
    if not isinstance(name, str):
        return
    tasks = {model: _task(spec) for model, spec in _entries(tree, "models")}
    if name in tasks and tasks[name] in (task, None):
        return
    fit = [model for model, does in tasks.items() if does == task]
    if name in tasks:
        yield Problem(path, f"models.{name} is for {tasks[name]}, this needs a model for {task}", _only(fit))
    elif name not in _names(tree, "models"):
        yield Problem(path, f"no model is named {shown(name)}", nearest(name, fit))


def _task(spec: Mapping[str, Any]) -> object:
    """What a model would do, as far as its unchecked entry tells; None where it does not."""
    can = TASKS.get(str(spec.get("engine")), ())
    return spec["task"] if "task" in spec and len(can) > 1 else next(iter(can), None)


def _only(names: list[str]) -> str | None:
    return names[0] if len(names) == 1 else None


_SECTIONS = {"collection": "knowledge", "tool": "tools"}


def _unresolved(tree: object, path: KeyPath, names: object, what: str) -> Iterator[Problem]:
    known = _names(tree, _SECTIONS[what])
    seen = set()
    for position, name in _items(names):
        if not isinstance(name, str):
            continue
        if name not in known:
            yield Problem((*path, position), f"no {what} is named {shown(name)}", nearest(name, known))
        if name in seen:
            yield Problem((*path, position), f"the {what} {shown(name)} is named twice")
        seen.add(name)


def _callless(tree: object, name: str, spec: Mapping[str, object]) -> Iterator[Problem]:
    """Tools of an assistant whose model can call none."""
    model = dict(_entries(tree, "models")).get(str(spec.get("model")), {})
    if any(True for _ in _items(spec.get("tools"))) and model.get("engine") in _CALL_NOTHING:
        message = f"the engine {model['engine']} of models.{spec['model']} calls no tools"
        yield Problem(("assistants", name, "tools"), message)
