"""The `knowledge` section: collections of documents, how they are cut and searched. Knows no store."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PlainValidator, ValidationInfo, WithJsonSchema, field_validator

from config.section import (
    FROZEN,
    Attribute,
    Count,
    Hits,
    Name,
    Outside,
    Section,
    Whole,
    absolute,
    is_file,
    is_folder,
    shown,
    text_of,
    wrong,
)

AttributeType = Literal["string", "int", "float", "bool"]


def _glob(value: object, info: ValidationInfo) -> str:
    value = text_of(value)
    path = absolute(value, info)
    parts = path.parts
    if any("**" in part and part != "**" for part in parts):
        raise wrong(f'"**" stands alone between slashes, {shown(value)} mixes it with other characters')
    first = next((index for index, part in enumerate(parts) if re.search(r"[*?\[]", part)), len(parts))
    base = Path(*parts[:first])
    if first == len(parts):
        _check_plain(value, path)
    elif not is_folder(base):
        raise wrong(f"the folder where {shown(value)} starts does not exist")
    return str(path)


def _check_plain(value: str, path: Path) -> None:
    """A pattern without wildcards is one file."""
    if is_folder(path):
        guess = None if isinstance(value, Outside) else f"{value.rstrip('/')}/**/*.md"
        raise wrong(f"{shown(value)} is a folder; say which files of it", guess)
    if not is_file(path):
        raise wrong(f"the file {shown(value)} does not exist")


class FilesSource(Section):
    """Documents that lie in files."""

    files: Annotated[str, PlainValidator(_glob), WithJsonSchema({"type": "string", "minLength": 1})] = Field(
        description="Which files, such as ./docs/**/*.md (** is any depth). Markdown, text and HTML are read."
    )


class ChunkSpec(Section):
    """How documents are cut for search."""

    tokens: Count = Field(default=200, description="The most tokens a chunk has, counted as the embed model counts.")
    overlap: Whole = Field(
        default=30, validate_default=True, description="How many tokens a chunk repeats of the one before it."
    )

    @field_validator("overlap")
    @classmethod
    def _less_than_a_chunk(cls, overlap: int, info: ValidationInfo) -> int:
        tokens = info.data.get("tokens")
        if tokens is not None and overlap >= tokens:
            raise wrong(f"an overlap of {overlap} tokens leaves nothing new in a chunk of {tokens}")
        return overlap


class SearchSpec(Section):
    """How a collection is searched unless a request says otherwise."""

    mode: Literal["hybrid", "vector", "text"] = Field(
        default="hybrid", description="vector compares meaning, text compares words, hybrid does both."
    )
    k: Hits = Field(default=8, description="How many chunks a search returns.")


class CollectionSpec(Section):
    """Documents that are searched together."""

    embed: Name = Field(description="The model that embeds the chunks: a name under models with task embed.")
    sources: tuple[FilesSource, ...] = Field(
        default=(), description="Where documents come from; without any they come by `hearth ingest` only."
    )
    chunk: ChunkSpec = Field(default=ChunkSpec(), description="How documents are cut.")
    search: SearchSpec = Field(default=SearchSpec(), description="How the collection is searched.")
    attributes: Annotated[Mapping[Attribute, AttributeType], *FROZEN] = Field(
        default_factory=dict,
        validate_default=True,
        description="Facts documents carry and searches filter by, each with its type: string, int, float or bool.",
    )
