"""JSON-RPC 2.0 and the messages of the Model Context Protocol that a server of tools sends and takes; types only."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

VERSIONS = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")
"""Versions of the protocol spoken here, the newest first."""

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603

Id = int | str


class RpcMessage(msgspec.Struct):
    """A request, or without `id` a notification; without `method` an answer, to something that was never asked."""

    jsonrpc: Literal["2.0"]
    method: str | None = None
    id: Id | UnsetType = UNSET
    params: dict[str, Any] | None = None


class RpcFault(msgspec.Struct):
    code: int
    message: str


class RpcResult(msgspec.Struct):
    id: Id
    result: Any
    jsonrpc: Literal["2.0"] = "2.0"


class RpcFailure(msgspec.Struct):
    """`id` is null where the request's own could not be read."""

    id: Id | None
    error: RpcFault
    jsonrpc: Literal["2.0"] = "2.0"


class ServerInfo(msgspec.Struct, rename="camel"):
    name: str
    version: str
    title: str


class InitializeResult(msgspec.Struct, rename="camel"):
    protocol_version: str
    capabilities: dict[str, Any]
    server_info: ServerInfo
    instructions: str


class OfferedTool(msgspec.Struct, rename="camel"):
    name: str
    description: str
    input_schema: Mapping[str, Any]
    annotations: dict[str, bool] | UnsetType = UNSET


class ListToolsResult(msgspec.Struct):
    tools: Sequence[OfferedTool]


class ToolText(msgspec.Struct, tag_field="type", tag="text"):
    text: str


class CallToolResult(msgspec.Struct, rename="camel"):
    """`structured_content` is an object, the same as the text tells."""

    content: Sequence[ToolText]
    is_error: bool = False
    structured_content: dict[str, Any] | UnsetType = UNSET


class CallTool(msgspec.Struct):
    """The parameters of tools/call."""

    name: str
    arguments: dict[str, Any] | None = None


class Initialize(msgspec.Struct, rename="camel"):
    """What of the parameters of initialize counts here."""

    protocol_version: str


class Cancelled(msgspec.Struct, rename="camel"):
    request_id: Id
