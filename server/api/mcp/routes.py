"""`/mcp`: the Model Context Protocol over HTTP ("streamable HTTP"), each answer one body of JSON.

A session is a number that the client sends back; what it is good for is cancelling its own calls. It is not looked up,
so a session outlives a restart, and any replica can answer it.
"""

import re
from secrets import token_hex
from typing import Any

import msgspec
from litestar import Request, delete, get, post
from litestar.datastructures import State

from server.api.mcp.dialogue import Dialogue, opens_session
from server.api.mcp.wire import VERSIONS
from server.api.reply import Reply
from server.api.request_state import IN_VAIN
from server.errors import InvalidValue, MethodNotAllowed
from server.models.caller import CALLER
from server.runtime import Runtime

_PATHS = ["/mcp", "/v1/mcp"]
_SESSION = "mcp-session-id"
_encoder = msgspec.json.Encoder()
_sound = re.compile(r"[\x21-\x7e]{1,128}")


@post(_PATHS, status_code=200, opt={"needs": "any"}, include_in_schema=False)
async def mcp(request: Request[Any, Any, Any]) -> Reply:
    if (version := request.headers.get("mcp-protocol-version")) is not None and version not in VERSIONS:
        told = ", ".join(VERSIONS)
        raise InvalidValue(f"MCP is spoken here in the versions {told}.", param="MCP-Protocol-Version")
    raw = await request.body()
    request.scope["state"][IN_VAIN] = True
    runtime: Runtime = request.app.state["runtime"]
    fresh = token_hex(16) if opens_session(raw) else None
    session = fresh or _session(request)
    dialogues = _dialogues(request.app.state)
    key = (CALLER.get().name, session)
    dialogue = dialogues.setdefault(key, Dialogue()) if session else Dialogue()
    try:
        answer = await dialogue.hear(runtime, raw)
    finally:
        if session and dialogue.idle:
            dialogues.pop(key, None)
    headers = {"Mcp-Session-Id": fresh} if fresh else {}
    if answer is None:
        return Reply(b"", status=202, headers=headers)
    return Reply(_encoder.encode(answer), headers=headers)


@get(_PATHS, opt={"needs": "any"}, include_in_schema=False)
async def listen(request: Request[Any, Any, Any]) -> Reply:
    """The server has nothing to say by itself, which the protocol tells by this status."""
    raise MethodNotAllowed("Send messages with POST: this server says nothing that it was not asked.")


@delete(_PATHS, status_code=200, opt={"needs": "any"}, include_in_schema=False)
async def leave(request: Request[Any, Any, Any]) -> Reply:
    """The session ends, and what runs in it."""
    dialogue = _dialogues(request.app.state).get((CALLER.get().name, _session(request)))
    if dialogue is not None:
        dialogue.cancel()
    return Reply(b"{}")


def _session(request: Request[Any, Any, Any]) -> str:
    """The client's, empty where it has none. Raises InvalidValue where it cannot be one."""
    told = request.headers.get(_SESSION, "")
    if told and not _sound.fullmatch(told):
        raise InvalidValue("The session's id has 1 to 128 visible characters.", param="Mcp-Session-Id")
    return told


def _dialogues(state: State) -> dict[tuple[str, str], Dialogue]:
    """Those with calls under way."""
    if "mcp" not in state:
        state["mcp"] = {}
    found: dict[tuple[str, str], Dialogue] = state["mcp"]
    return found


ROUTES = [mcp, listen, leave]
