"""The bodies that tell how this server and each of its parts are; types only."""

from typing import Literal

import msgspec

from server.knowledge.report import Upkeep


class Alive(msgspec.Struct):
    status: Literal["ok"]


class Version(msgspec.Struct):
    version: str


class Readiness(msgspec.Struct):
    ready: bool
    waiting: list[str]


class ModelHealth(msgspec.Struct):
    state: str
    engine: str
    error: str | None
    progress: str | None
    restarts: int
    in_flight: int
    queued: int
    device: str | None
    precision: str | None
    attention: str | None
    weights_bytes: int | None
    cache_bytes: int | None


class SourceHealth(msgspec.Struct):
    """`state` is connecting, following or waiting. `messages` and `refused` count since the start."""

    source: str
    state: str
    error: str | None
    messages: int
    refused: int
    lag_seconds: float | None


class CollectionHealth(msgspec.Struct):
    """`sources` are those that are followed or watched while the server runs; `upkeep` is how the table is kept."""

    state: str
    error: str | None
    documents: int
    chunks: int
    skipped: list[str]
    sources: list[SourceHealth] = []
    upkeep: Upkeep | None = None


class ToolHealth(msgspec.Struct):
    """One entry of the recipe's tools: `stopped` where it has not been used yet, and then its tools are not known."""

    kind: Literal["python", "langchain", "mcp", "retrieve"]
    state: str
    error: str | None
    tools: list[str]


class PolicyHealth(msgspec.Struct):
    """`next` is in seconds since 1970, null for a policy that runs only when it is asked to."""

    state: Literal["waiting", "running", "failed"]
    next: float | None
    error: str | None


class Health(msgspec.Struct):
    status: Literal["ok", "degraded", "loading"]
    version: str
    recipe: str
    uptime_seconds: float
    models: dict[str, ModelHealth]
    knowledge: dict[str, CollectionHealth]
    tools: dict[str, ToolHealth] = {}
    policies: dict[str, PolicyHealth] = {}


class Welcome(msgspec.Struct):
    name: Literal["hearth"]
    version: str
    base_url: str
    models: list[str]
    documentation: str
