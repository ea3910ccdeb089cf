"""The committed schema is current, accepts what the loader accepts, and the full recipe shows every key there is."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

from config import load
from config.contradiction import TASKS
from config.document import parse
from config.schema import FILE, render

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
SCHEMA: dict[str, Any] = json.loads(render())
[_model] = SCHEMA["properties"]["models"]["patternProperties"].values()
ENGINES: dict[str, str] = _model["discriminator"]["mapping"]
"""Which section of the schema describes a model, by the word for its engine."""


def keys_of_schema(schema: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every key path of the schema; a free name is `*`, a model's keys stand under the name of its section."""
    if "$ref" in schema:
        yield from keys_of_schema(SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]], path)
    for ref in set(schema.get("discriminator", {}).get("mapping", {}).values()):
        yield from keys_of_schema({"$ref": ref}, (*path[:-1], ref))
    for key, inner in schema.get("properties", {}).items():
        yield (*path, key)
        yield from keys_of_schema(inner, (*path, key))
    for inner in schema.get("patternProperties", {}).values():
        yield from keys_of_schema(inner, (*path, "*"))
    for option in schema.get("anyOf", []) + ([] if "discriminator" in schema else schema.get("oneOf", [])):
        yield from keys_of_schema(option, path)
    if "items" in schema:
        yield from keys_of_schema(schema["items"], path)


def keys_of_recipe(value: object, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    free = path in {
        *(("models",), ("knowledge",), ("assistants",), ("tools",), ("knowledge", "*", "attributes")),
        *(("tools", "*", "env"), ("tools", "*", "mcp", "headers")),
    }
    if path == ("tools", "*", "arguments"):
        return  # whatever the class takes
    for key, inner in value.items() if isinstance(value, dict) else ():
        name = (ENGINES[inner["engine"]] if path == ("models",) else "*") if free else str(key)
        if not free:
            yield (*path, name)
        yield from keys_of_recipe(inner, (*path, name))
    for inner in value if isinstance(value, list) else ():
        yield from keys_of_recipe(inner, path)


def test_the_committed_schema_is_current() -> None:
    assert FILE.read_text(encoding="utf-8") == render(), "run: python -m config.schema"


def test_the_full_recipe_shows_every_key_there_is_and_no_other() -> None:
    shown = set(keys_of_recipe(parse((RECIPES / "full.yaml").read_text(encoding="utf-8")).value))
    assert shown == set(keys_of_schema(SCHEMA))


def test_the_full_recipe_explains_every_key_in_a_comment() -> None:
    lines = (RECIPES / "full.yaml").read_text(encoding="utf-8").splitlines()
    explained = {line.split(":")[0].strip(" -") for line in lines if " #" in line and ":" in line}
    top = {"server", "keys", "limits", "telemetry", "chunk", "search", "assistants", "description", "version"}
    assert {path[-1] for path in keys_of_schema(SCHEMA)} - explained <= top


def test_every_key_has_a_description() -> None:
    sections = [SCHEMA, *SCHEMA["$defs"].values()]
    bare = [key for section in sections for key, value in section["properties"].items() if "description" not in value]
    assert bare == []


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.name)
def test_every_recipe_here_loads_and_fits_the_schema(path: Path) -> None:
    recipe = load(path, environ={})
    jsonschema_rs.validator_for(SCHEMA).validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    assert path.read_text(encoding="utf-8").startswith("# yaml-language-server: $schema=./recipe.schema.json\n")
    assert recipe.redacted()


def test_the_starter_serves_its_ids() -> None:
    recipe = load(RECIPES / "starter.yaml", environ={})
    assert {"starter", "embed"} <= {*recipe.models, *recipe.assistants}
    assert recipe.assistants["starter"].knowledge == ("handbook",)


GOOD = [
    {"version": 1, "server": {"limits": {"body": 10, "queue": "${env:QUEUE:-5}"}, "listen": "${env:HOST}:80"}},
    {"version": 1, "server": {"limits": {"body": "512 KiB"}, "listen": ":80", "cors": ["app://obsidian.md"]}},
    {"version": 1, "models": {"a": {"engine": "echo", "idle_unload": "1h30m", "tokens_per_second": "${env:X}"}}},
    {"version": 1, "models": {"a": {"engine": "reader", "source": "x", "precision": "${env:P:-f32}"}}},
    {"version": 1, "assistants": {"a": {"model": "${env:MODEL}", "k": None}}},
    {"version": 1, "models": {"a": {"engine": "auto", "source": "hf:a/b", "download": "${env:FETCH:-false}"}}},
    {"version": 1, "models": {"a": {"engine": "llamacpp", "source": "x.gguf", "cache": "q8", "parallel": "${env:N}"}}},
    {"version": 1, "models": {"a": {"engine": "openvino", "source": "x", "task": "rerank", "deadline": "10m"}}},
    {"version": 1, "models": {"a": {"engine": "echo", "fallback": "b"}}},
    {"version": 1, "models": {"a": {"engine": "echo", "fallback": {"to": "${env:B}", "queue": 3}}}},
    {"version": 1, "models": {"a": {"engine": "remote", "url": "${env:URL}", "secret": "${env:KEY}"}}},
    {"version": 1, "tools": {"a": {"python": "m:f", "timeout": "5s", "env": {"A": "${env:A}"}, "parallel": 2}}},
    {"version": 1, "tools": {"a": {"langchain": "m.n:C", "arguments": {"x": [1, {"y": None}]}}}},
    {"version": 1, "tools": {"a": {"mcp": ["x", "${env:Y}"], "allow": ["b.c"]}, "b": {"mcp": {"url": "http://a/mcp"}}}},
    {"version": 1, "tools": {"a": {"retrieve": ["docs"], "k": 3}}},
]
BAD: list[object] = [
    {},
    [],
    {"version": 2},
    {"version": 1, "servr": {}},
    {"version": 1, "server": {"listen": 8080}},
    {"version": 1, "server": {"limits": {"body": "64 mib"}}},
    {"version": 1, "models": {"a": {"engine": "eco"}}},
    {"version": 1, "models": {"a": {"engine": "echo", "threshold": 1}}},
    {"version": 1, "models": {"a b": {"engine": "echo"}}},
    {"version": 1, "models": {"a": {"engine": "echo", "idle_unload": 30}}},
    {"version": 1, "models": {"a": {"engine": "auto", "source": "x", "download": "yes"}}},
    {"version": 1, "models": {"a": {"engine": "auto", "source": "x", "task": "chatting"}}},
    {"version": 1, "models": {"a": {"engine": "auto", "source": "x", "cache": "q5"}}},
    {"version": 1, "models": {"a": {"engine": "auto", "source": "x", "draft_tokens": 17}}},
    {"version": 1, "models": {"a": {"engine": "auto", "source": "x", "deadline": 30}}},
    {"version": 1, "models": {"a": {"engine": "remote", "url": "ftp://a/v1"}}},
    {"version": 1, "models": {"a": {"engine": "remote", "url": "http://a/v1", "idle_unload": "3m"}}},
    {"version": 1, "models": {"a": {"engine": "echo", "fallback": {"queue": 3}}}},
    {"version": 1, "knowledge": {"a": {"embed": "e", "search": {"mode": "hybird"}}}},
    {"version": 1, "knowledge": {"a": {"embed": "e", "search": {"k": 1001}}}},
    {"version": 1, "tools": {"a": {}}},
    {"version": 1, "tools": {"a__b": {"python": "m:f"}}},
    {"version": 1, "tools": {"a": {"python": "m f"}}},
    {"version": 1, "tools": {"a": {"python": "m:f", "arguments": {}}}},
    {"version": 1, "tools": {"a": {"mcp": "uvx"}}},
    {"version": 1, "tools": {"a": {"mcp": []}}},
    {"version": 1, "tools": {"a": {"mcp": {"url": "ftp://a"}}}},
    {"version": 1, "tools": {"a": {"retrieve": []}}},
]


@pytest.mark.parametrize("value", GOOD)
def test_the_schema_accepts_what_a_recipe_may_write(value: object) -> None:
    jsonschema_rs.validator_for(SCHEMA).validate(value)


@pytest.mark.parametrize("value", BAD)
def test_the_schema_refuses_what_the_loader_refuses(value: object) -> None:
    assert not jsonschema_rs.validator_for(SCHEMA).is_valid(value)


def test_the_words_for_an_engine_are_those_that_have_tasks() -> None:
    assert set(ENGINES) == set(TASKS)


def test_the_full_recipe_shows_every_engine_there_is() -> None:
    models = load(RECIPES / "full.yaml", environ={}).models.values()
    assert {model.engine for model in models} == set(ENGINES)
