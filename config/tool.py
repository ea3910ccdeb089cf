"""The `tools` section: functions that models may call, what runs them, and within which limits. Runs none."""

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    PlainSerializer,
    PlainValidator,
    SecretStr,
    Strict,
    Tag,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)

from config.places import absolute, is_folder
from config.remote import ServerUrl
from config.section import (
    FROZEN,
    Count,
    Duration,
    Entries,
    EntryPoint,
    HeaderName,
    Hits,
    Name,
    Reference,
    Section,
    Size,
    VariableName,
    shown,
    wrong,
)

Kind = Literal["python", "langchain", "mcp", "retrieve"]

LONGEST_SERVER = 53
"""Characters of the name of an MCP server: models call SERVER__TOOL, which has 64 and ends with 9 of a hash if cut."""


def _folder_there(value: object, info: ValidationInfo) -> Path:
    if not isinstance(value, str | Path):
        raise wrong("should be the path of a folder")
    path = absolute(str(value), info)
    if not is_folder(path):
        raise wrong(f"the folder {shown(value)} does not exist")
    return path


Folder = Annotated[
    Path, PlainValidator(_folder_there), PlainSerializer(str), WithJsonSchema({"type": "string", "minLength": 1})
]
"""A folder that is there; relative ones start at the recipe's folder."""


def _no_nul(value: SecretStr) -> SecretStr:
    if any(character in value.get_secret_value() for character in "\0\r\n"):
        raise wrong("should be one line")
    return value


Hidden = Annotated[
    SecretStr,
    AfterValidator(_no_nul),
    PlainSerializer(lambda value: "***", return_type=str),
    WithJsonSchema({"type": "string"}),
]
"""A text of one line, of any length, that is never printed: it may be a secret."""


def _frozen(value: object) -> object:
    """Plain values as ones that never change; what YAML gives is nothing else."""
    match value:
        case Mapping():
            return Entries({str(key): _frozen(inner) for key, inner in value.items()})
        case list() | tuple():
            return tuple(map(_frozen, value))
        case _:
            return str(value) if isinstance(value, str) else value


def thawed(value: object) -> Any:
    """What `arguments` were written as: mappings, lists, texts, numbers."""
    match value:
        case Mapping():
            return {key: thawed(inner) for key, inner in value.items()}
        case tuple():
            return [thawed(inner) for inner in value]
        case _:
            return value


def _mapping(value: object) -> object:
    if not isinstance(value, Mapping):
        raise wrong("should be a mapping of keys to values")
    return _frozen(value)


Arguments = Annotated[
    Any,
    PlainValidator(_mapping),
    PlainSerializer(thawed),
    WithJsonSchema({"type": "object"}),
]


Text = Annotated[str, Field(min_length=1), Strict()]


def _not_empty(items: tuple[str, ...]) -> tuple[str, ...]:
    """pydantic's own check also speaks of a list whose items are wrong."""
    if not items:
        raise wrong("should have at least one item")
    return items


_SOME = (AfterValidator(_not_empty), Field(json_schema_extra={"minItems": 1}))


class _Limited(Section):
    """The keys that every tool has."""

    kind: ClassVar[Kind]

    timeout: Duration = Field(
        default=timedelta(seconds=30),
        description="How long one call may take; then it is ended, and the model is told.",
    )
    output: Size = Field(
        default=64 * 2**10,
        description="How long a result may be; what is longer is cut, and the cut is marked.",
    )


class _Process(_Limited):
    """The keys of a tool that has processes of its own."""

    env: Annotated[Mapping[VariableName, Hidden], *FROZEN] = Field(
        default_factory=dict,
        validate_default=True,
        description="Environment variables the tool is given, such as API_KEY: ${env:API_KEY}; of Hearth's own it "
        "sees where programs and caches are, and nothing else.",
    )
    folder: Folder = Field(
        default=Path(),
        validate_default=True,
        description="The folder its module is in, where it is not installed, or where its command runs; unless said "
        "the recipe's.",
        json_schema_extra={"default": "."},
    )


class _Code(_Process):
    """The keys of a tool that is Python code."""

    description: Text | None = Field(
        default=None, description="What models are told it does, instead of what its code says."
    )
    memory: Size = Field(
        default=2**30, description="How much memory one of its processes may take beyond what it maps of files."
    )
    parallel: Count = Field(
        default=4,
        description="How many calls run side by side, each in a process of its own; more wait within their timeout.",
    )


class PythonTool(_Code):
    """A function with type hints and a docstring."""

    kind = "python"

    python: EntryPoint = Field(
        description="module:function, or the name of an entry point of the group hearth.tools in an installed package."
    )


class LangchainTool(_Code):
    """A tool made for LangChain, by its own interface."""

    kind = "langchain"

    langchain: Reference = Field(description="module:Class of a LangChain BaseTool, or module:object of one made.")
    arguments: Arguments = Field(
        default_factory=dict, validate_default=True, description="What the class is made with, by keyword."
    )


class McpUrl(Section):
    """An MCP server that runs already and speaks streamable HTTP."""

    url: ServerUrl = Field(description="Where it is, such as http://127.0.0.1:3001/mcp.")
    headers: Annotated[Mapping[HeaderName, Hidden], *FROZEN] = Field(
        default_factory=dict,
        validate_default=True,
        description="Headers of every request, such as Authorization: Bearer ${env:TOKEN}.",
    )


def _no_text(value: object) -> object:
    if not isinstance(value, list | tuple | Mapping | McpUrl):
        raise wrong("should be a list, the program and each argument by itself, or {url: ...}")
    return value


def _server(value: object) -> str:
    return "url" if isinstance(value, Mapping | McpUrl) else "command"


Command = Annotated[tuple[Text, ...], *_SOME]
Server = Annotated[
    Annotated[Command, Tag("command")] | Annotated[McpUrl, Tag("url")],
    Discriminator(_server),
    BeforeValidator(_no_text),
]


class McpTool(_Process):
    """A server of the Model Context Protocol, which may have many tools."""

    kind = "mcp"

    mcp: Server = Field(description="[command, argument, ...] of a server to start, or {url: ...} of one that runs.")
    allow: Annotated[tuple[Text, ...], *_SOME] | None = Field(
        default=None, description="Which of its tools may be used, by the names it gives them; unless said all."
    )
    memory: Size | None = Field(
        default=None, description="How much memory a server that is started may take; none leaves it free."
    )

    @model_validator(mode="after")
    def _of_its_kind(self) -> Self:
        started = sorted(self.model_fields_set & {"env", "folder", "memory"})
        if isinstance(self.mcp, McpUrl) and started:
            raise wrong(f"{' and '.join(started)}: only for a server that Hearth starts, and this one is at a URL")
        return self


class RetrieveTool(_Limited):
    """A search in collections, for the model to call."""

    kind = "retrieve"

    retrieve: Annotated[tuple[Name, ...], *_SOME] = Field(
        description="The collections that are searched: names under knowledge."
    )
    k: Hits | None = Field(
        default=None, description="How many chunks a call brings; none takes each collection's search.k."
    )
    description: Text | None = Field(default=None, description="What models are told is in there.")


TOOLS: Mapping[Kind, type[PythonTool] | type[LangchainTool] | type[McpTool] | type[RetrieveTool]] = {
    "python": PythonTool,
    "langchain": LangchainTool,
    "mcp": McpTool,
    "retrieve": RetrieveTool,
}
"""Each kind of tool by the key that tells it from the others."""


def tool_kind(value: object) -> Kind | None:
    """Which kind of tool a mapping of the recipe is; None where no key says."""
    if isinstance(value, Section):
        return next((kind for kind, section in TOOLS.items() if isinstance(value, section)), None)
    return next((kind for kind in TOOLS if isinstance(value, Mapping) and kind in value), None)


ToolSpec = PythonTool | LangchainTool | McpTool | RetrieveTool
CodeTool = PythonTool | LangchainTool
ToolEntry = Annotated[
    Annotated[PythonTool, Tag("python")]
    | Annotated[LangchainTool, Tag("langchain")]
    | Annotated[McpTool, Tag("mcp")]
    | Annotated[RetrieveTool, Tag("retrieve")],
    Discriminator(tool_kind),
]
"""One tool, or the tools of one MCP server."""
