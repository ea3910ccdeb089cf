"""What no JSON Schema can say of a request: that one field names what another has, or what was stored before.

Schemathesis loads this. Valid bodies are made to refer rightly; those that are to be refused stay as they are.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from typing import Any
from urllib.parse import unquote

import schemathesis
from hypothesis import strategies as st

KNOWN: dict[str, list[str]] = json.loads(os.environ.get("HEARTH_KNOWN", "{}"))
"""By the format: what the server under test has kept."""

FORMATS = (
    *("response_format", "json_schema", "grammar", "structured_outputs"),
    *("guided_json", "guided_regex", "guided_choice", "guided_grammar"),
)
_LEAST_VOCABULARY = 256
_DIMENSION = 384
_MOST_COMPARISONS = 64
_LONGEST_S = 86_400
_OWN_DEPTH = 2
_MOST_ALIKE = 5

GRAMMARS = ['root ::= "yes" | "no"', 'start: "yes" | "no"']
SCHEMAS = ['{"type": "object"}', '{"type": "string", "maxLength": 3}']
PATTERNS = ["[a-z]{1,3}", "yes|no", r"\d\d"]

schemathesis.openapi.format("grammar", st.sampled_from(GRAMMARS))
schemathesis.openapi.format("json-schema", st.sampled_from(SCHEMAS))
schemathesis.openapi.format("regex", st.sampled_from(PATTERNS))
for _name in ("response-id", "item-id", "compaction"):
    schemathesis.openapi.format(_name, st.sampled_from(KNOWN.get(_name) or [""]))


@schemathesis.serializer("application/x-ndjson", "application/jsonl", "application/ndjson")
def json_lines(context: Any, value: Any) -> bytes:
    """Any value is a line; one that is no document is refused by its number, in an answer that is none."""
    return b"\n".join(json.dumps(each).encode() for each in (value if isinstance(value, list) else [value]))


_sent: Counter[tuple[str, ...]] = Counter()


@schemathesis.hook
def filter_case(context: schemathesis.HookContext, case: schemathesis.Case[Any]) -> bool:
    """What lies deep in bodies is of types that many operations share: each such case is sent a few times, all in all.

    Cases of an operation's own fields, and of the fields of these, are all sent.
    """
    if case.meta is None or not isinstance(said := getattr(case.meta.phase.data, "description", None), str):
        return True
    place = re.split(" -> |(?<=value): |(?<=array): ", said)
    if len(place) <= _OWN_DEPTH:
        return True
    alike = (f"{getattr(case.meta.phase.data, 'scenario', '')}", *place[-_OWN_DEPTH:])
    _sent[alike] += 1
    return _sent[alike] <= _MOST_ALIKE


@schemathesis.hook
def map_case(context: schemathesis.HookContext, case: schemathesis.Case[Any]) -> schemathesis.Case[Any]:
    if case.operation.path == "/v1/models/sse" and _goes_on((case.query or {}).get("timeout", 1)):
        case.query = {**(case.query or {}), "timeout": 0.2}  # a stream that goes on would be waited for
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return case
    if not unquote(str(case.path_parameters.get("document_id", ""))).isprintable():
        case.path_parameters["document_id"] = "printable"
    if "collection" in case.path_parameters and KNOWN.get("collection"):
        case.path_parameters["collection"] = KNOWN["collection"][0]
        if isinstance(case.body, dict):
            _undeclared(case.body)
    if isinstance(case.body, dict):
        for mend in (_format, _choice, _calls, _lengths, _ids, _end, _pages, _filters, _knowledge, _begun):
            mend(case.body)
        if case.path_parameters.get("vector_store_id") in KNOWN.get("collection", ()):
            _undeclared(case.body)
    return case


def _goes_on(timeout: Any) -> bool:
    """Whether it is a time that the document allows."""
    try:
        return 0.1 <= float(timeout) <= _LONGEST_S
    except (TypeError, ValueError):
        return False


def _format(body: dict[str, Any]) -> None:
    """One field alone says what the answer is to be."""
    given = [name for name in FORMATS if body.get(name) not in (None, "", {"type": "text"})]
    for name in given[1:]:
        body[name] = None


def _ids(body: dict[str, Any]) -> None:
    """Which token ids there are is a matter of the model."""
    for name in ("tokens", "input", "prompt", "stop_token_ids"):
        body[name] = _low(body[name]) if isinstance(body.get(name), list) else body.get(name)
        if body[name] is None:
            del body[name]
    if body.get("logit_bias"):
        body["logit_bias"] = {"5": max(body["logit_bias"].values())}


def _low(value: Any) -> Any:
    if isinstance(value, list):
        return [_low(each) for each in value]
    return int(value) % _LEAST_VOCABULARY if isinstance(value, int | float) else value


def _choice(body: dict[str, Any]) -> None:
    """A call that is asked for by its name is of a function that is offered."""
    names = [name for tool in body.get("tools") or () if (name := _function(tool))]
    match body.get("tool_choice"):
        case {"type": "tool"} as chosen:
            chosen["name"] = names[0] if names else "f"
        case {"type": "function", "function": chosen} | ({"type": "function"} as chosen):
            chosen["name"] = names[0] if names else "f"
        case {"allowed_tools": {"tools": allowed}} | {"type": "allowed_tools", "tools": allowed}:
            for each in allowed:
                each.get("function", each)["name"] = names[0] if names else "f"
    if isinstance(body.get("function_call"), dict):
        body["function_call"]["name"] = body["functions"][0]["name"]


def _function(tool: dict[str, Any]) -> str | None:
    if tool.get("type") == "function":
        return (tool.get("function") or tool)["name"]  # type: ignore[no-any-return]
    return tool.get("name") if tool.get("type") in (None, "custom") else None


def _calls(body: dict[str, Any]) -> None:
    """The output of a call comes after the call."""
    items = body.get("input")
    if isinstance(items, list) and all(isinstance(item, dict) for item in items):
        called = [
            {"type": "function_call", "call_id": item["call_id"], "name": "f", "arguments": "{}"}
            for item in items
            if item.get("type") == "function_call_output"
        ]
        body["input"] = called + items

    for message in body.get("messages") or ():
        if message.get("role") == "tool" and message.get("tool_call_id") is None:
            message["tool_call_id"] = "function1"


def _lengths(body: dict[str, Any]) -> None:
    """Some numbers are at most others."""
    if body.get("min_tokens"):
        body["min_tokens"] = 1
        for name in ("max_tokens", "max_completion_tokens"):
            if body.get(name) is not None:
                body[name] = max(1, body[name])
    if body.get("best_of") is not None:
        body["best_of"] = body.get("n") or 1
    for each in (body, *(body.get("files") or ())):
        static = (each.get("chunking_strategy") or {}).get("static")
        if static is not None:
            static["chunk_overlap_tokens"] = min(static["chunk_overlap_tokens"], static["max_chunk_size_tokens"] // 2)
    if isinstance(body.get("text_1"), list):
        body["text_2"] = ["a"] * len(body["text_1"])


def _end(body: dict[str, Any]) -> None:
    """An answer that is continued is the last message; one that the model may not end is short."""
    if body.get("ignore_eos"):
        body["n_predict" if "n_predict" in body else "max_tokens"] = 16
    if body.get("continue_final_message"):
        body.pop("add_generation_prompt", None)
        body["messages"] = [*body["messages"], {"role": "assistant", "content": "Well"}]


def _pages(body: dict[str, Any]) -> None:
    """Pages reach only so far, and only some versions are kept."""
    body.pop("as_of", None)
    if body.get("page"):
        body["page"] = "page_0"


def _filters(body: dict[str, Any]) -> None:
    """All in all a filter compares only so often."""
    while body.get("filters") and _comparisons(body["filters"]) > _MOST_COMPARISONS:
        body["filters"] = body["filters"]["filters"][0]


def _comparisons(found: dict[str, Any]) -> int:
    return sum(map(_comparisons, found["filters"])) if "filters" in found else 1


def _undeclared(body: dict[str, Any]) -> None:
    """A collection of the recipe has the attributes that it declares, and this one declares none."""
    for each in (body, *(body.get("files") or ())):
        if each.get("attributes"):
            each["attributes"] = {}


def _knowledge(body: dict[str, Any]) -> None:
    """Which knowledge is needed, a request says once; a vector has the length and a direction of the collection's."""
    if isinstance(body.get("vector"), list):
        body["vector"] = [1.0, *([0.0] * (_DIMENSION - 1))]
    tools = body.get("tools")
    searches = [tool for tool in tools if tool.get("type") == "file_search"] if isinstance(tools, list) else []
    for tool in searches if body.get("retrieval") is not None else searches[1:]:
        tools.remove(tool)
    for each in (body.get("retrieval") or {}, *searches):
        while each.get("filters") and _comparisons(each["filters"]) > _MOST_COMPARISONS:
            each["filters"] = each["filters"]["filters"][0]


def _begun(body: dict[str, Any]) -> None:
    """An answer that the last message begins is held to no form (Anthropic's wire, whose requests have max_tokens)."""
    messages = body.get("messages")
    bound = any(body.get(name) for name in ("output_format", "output_config", "tool_choice"))
    if bound and messages and isinstance(messages[-1], dict) and messages[-1].get("role") == "assistant":
        messages.append({"role": "user", "content": "Go on."})
