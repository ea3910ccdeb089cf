"""The `knowledge` section: collections of documents, how they are cut and searched. Knows no store."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    Discriminator,
    Field,
    PlainValidator,
    Strict,
    Tag,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)

from config.licence import NotALicence, parsed
from config.places import absolute, is_file, is_folder
from config.section import (
    FROZEN,
    Attribute,
    Count,
    Flag,
    Hits,
    Name,
    Outside,
    Secret,
    Section,
    Size,
    Whole,
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


def _fitting(pattern: str, meaning: str) -> tuple[object, ...]:
    """A text that fits `pattern` as a whole."""
    compiled = re.compile(pattern)

    def check(value: object) -> str:
        text = text_of(value)
        if not compiled.fullmatch(text):
            raise wrong(f"{shown(text)} is not {meaning}")
        return str(text)

    return PlainValidator(check), WithJsonSchema({"type": "string", "minLength": 1})


_AT = r"([A-Za-z0-9._-]+|\[[0-9a-fA-F:.]+\])(:[0-9]{1,5})?"
Brokers = Annotated[str, *_fitting(rf"{_AT}(, *{_AT})*", "a list of brokers such as localhost:9092")]
RedisUrl = Annotated[
    str,
    *_fitting(
        rf"(rediss?://{_AT}(/[0-9]{{1,3}})?|unix:///\S+)",
        "a server such as redis://localhost:6379 or rediss://HOST/0 (username and password have keys)",
    ),
]
NatsUrl = Annotated[
    str,
    *_fitting(
        rf"(nats|tls|wss?)://{_AT}",
        "a server such as nats://localhost:4222 (username and password are keys of their own)",
    ),
]
Topic = Annotated[str, *_fitting(r"[^\s\x00-\x1f]{1,249}", "a name without spaces, at most 249 characters")]
NatsName = Annotated[str, *_fitting(r"[^\s.*>/\\]{1,200}", "a name without spaces and . * > / \\")]


def _licence(value: object) -> str:
    text = text_of(value)
    try:
        parsed(text)
    except NotALicence as error:
        raise wrong(f"{shown(text)} is no licence as SPDX writes it: {error}") from None
    return str(text)


def _one_licence(value: object) -> str:
    text = _licence(value)
    if not parsed(text).name:
        raise wrong(f"{shown(text)} is more than one licence; list each by itself")
    return text


_WRITTEN = WithJsonSchema({"type": "string", "minLength": 1, "maxLength": 500})
Licence = Annotated[str, PlainValidator(_licence), _WRITTEN]
OneLicence = Annotated[str, PlainValidator(_one_licence), _WRITTEN]
_OF_SOURCE = Field(
    default=None,
    description="The licence of documents that name none themselves, an SPDX expression such as CC0-1.0.",
)


class FilesSource(Section):
    """Documents that lie in files."""

    files: Annotated[str, PlainValidator(_glob), WithJsonSchema({"type": "string", "minLength": 1})] = Field(
        description="Which files, such as ./docs/**/*.md (** is any depth). Markdown, HTML, PDF, DOCX, tables, JSON, "
        "source code and text are read."
    )
    licence: Licence | None = _OF_SOURCE
    watch: Flag = Field(
        default=True,
        description="Whether a change of these files is taken in while the server runs; otherwise at each start.",
    )

    @property
    def name(self) -> str:
        """What its documents say of where they come from."""
        return f"files:{self.files}"


class StreamSource(Section):
    """Documents that arrive as messages, each a JSON object or raw text; what all streams have in common."""

    group: Topic | None = Field(
        default=None,
        description="The consumer group; none takes hearth-COLLECTION.",
    )
    username: Annotated[str, Field(min_length=1), Strict()] | None = Field(
        default=None, description="Who signs in, where the server asks for it."
    )
    password: Secret | None = Field(default=None, description='The password, as "${env:VARIABLE}" or "${file:path}".')
    licence: Licence | None = _OF_SOURCE


class KafkaSource(StreamSource):
    """Documents from a Kafka topic."""

    kafka: Brokers = Field(description="One broker or several, such as localhost:9092; needs hearth[kafka].")
    topic: Topic = Field(description="The topic, such as handbook.changes.")
    tls: Flag = Field(default=False, description="Whether the brokers are spoken to over TLS.")

    @property
    def name(self) -> str:
        return f"kafka:{self.topic}"


class RedisSource(StreamSource):
    """Documents from a Redis stream."""

    redis: RedisUrl = Field(description="The server, such as redis://localhost:6379/0; needs hearth[redis].")
    stream: Topic = Field(description="The key of the stream, such as handbook.changes.")

    @property
    def name(self) -> str:
        return f"redis:{self.stream}"


class NatsSource(StreamSource):
    """Documents from a NATS JetStream stream."""

    nats: NatsUrl = Field(description="The server, such as nats://localhost:4222; needs hearth[nats].")
    stream: NatsName = Field(description="The stream; it has to exist.")
    subject: Topic | None = Field(default=None, description="Only messages of this subject, such as docs.>.")

    @property
    def name(self) -> str:
        return f"nats:{self.stream}/{self.subject or '>'}"


SOURCES: Mapping[str, type[Section]] = {
    "files": FilesSource,
    "kafka": KafkaSource,
    "redis": RedisSource,
    "nats": NatsSource,
}
"""Each kind of source by the key that tells it from the others."""


def source_kind(value: object) -> str:
    """Which kind of source a mapping of the recipe is; files where nothing says another."""
    if isinstance(value, Section):
        return next((kind for kind, section in SOURCES.items() if isinstance(value, section)), "files")
    return next((kind for kind in SOURCES if isinstance(value, Mapping) and kind in value), "files")


Source = Annotated[
    Annotated[FilesSource, Tag("files")]
    | Annotated[KafkaSource, Tag("kafka")]
    | Annotated[RedisSource, Tag("redis")]
    | Annotated[NatsSource, Tag("nats")],
    Discriminator(source_kind),
]


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
    rerank: Name | None = Field(
        default=None,
        description="The model that puts what was found in order: one under models with task rerank. None unless said.",
    )
    rerank_depth: Hits = Field(
        default=50,
        description="How many of the nearest chunks the rerank model reads; k where that is more.",
    )


Language = Literal[
    "auto", "none", "arabic", "danish", "dutch", "english", "finnish", "french", "german", "greek", "hungarian",
    "italian", "norwegian", "portuguese", "romanian", "russian", "spanish", "swedish", "tamil", "turkish",
]  # fmt: skip
"""How the words of a collection lose their endings: the languages are those of LanceDB's tokenizers."""


class LicenceSpec(Section):
    """Which documents a collection may hold."""

    allow: Annotated[tuple[OneLicence, ...], Field(min_length=1)] = Field(
        description="The licences documents may be under, by their SPDX identifiers; a document without one is refused."
    )


class CollectionSpec(Section):
    """Documents that are searched together."""

    embed: Name = Field(description="The model that embeds the chunks: a name under models with task embed.")
    sources: tuple[Source, ...] = Field(
        default=(),
        description="Where documents come from; without any they come over HTTP and by `hearth ingest` only.",
    )
    chunk: ChunkSpec = Field(default=ChunkSpec(), description="How documents are cut.")
    search: SearchSpec = Field(default=SearchSpec(), description="How the collection is searched.")
    language: Language = Field(
        default="auto",
        description="The language in which words lose their endings for the search by words, such as german. auto "
        "tells it from the documents, none leaves words as they are.",
    )
    attributes: Annotated[Mapping[Attribute, AttributeType], *FROZEN] = Field(
        default_factory=dict,
        validate_default=True,
        description="Facts documents carry and searches filter by, each with its type: string, int, float or bool.",
    )
    hot: Size = Field(
        default=512 * 2**20,
        description="How much memory it may take for quick searches; one that takes more is searched on disk.",
    )
    licence: LicenceSpec | None = Field(
        default=None, description="Refuse documents by their licence; without it every document is taken."
    )

    @field_validator("sources")
    @classmethod
    def _each_once(cls, sources: tuple[Source, ...]) -> tuple[Source, ...]:
        names = [source.name for source in sources]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise wrong(f"two sources of one collection are {shown(twice)}")
        return sources
