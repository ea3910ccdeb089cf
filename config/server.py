"""The `server` section: where Hearth listens, who may ask, and how much at once."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, PlainSerializer

from config.section import Count, FolderToBe, Listen, ListenAt, Name, Secret, Section, Size, WebOrigin, wrong

Scope = Literal["infer", "retrieve", "admin"]


class Key(Section):
    """An API key. As soon as one is declared, every request has to carry one."""

    name: Name = Field(description="Who holds the key; appears in logs, the secret never does.")
    secret: Secret = Field(
        description='What the client sends as "Authorization: Bearer ...", at least 8 characters. '
        'Write it as "${env:VARIABLE}" or "${file:path}".'
    )
    scopes: Annotated[frozenset[Scope], PlainSerializer(sorted, return_type=list[str])] = Field(
        default=frozenset({"infer", "retrieve"}),
        min_length=1,
        description="What the key opens: infer (chat, embeddings), retrieve (search), admin (everything else).",
        json_schema_extra={"default": ["infer", "retrieve"]},
    )


class Limits(Section):
    """What the server refuses before it costs anything."""

    body: Size = Field(default=64 * 2**20, description="The largest request body, such as 64MiB.")
    queue: Count = Field(default=64, description="How many requests may wait for one model; more are answered 429.")


def _collector(url: str) -> str:
    try:
        parts = urlsplit(url)
        sound = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        sound = None
    if not sound:
        raise wrong("should be the http(s) URL of a collector")
    if parts.username is not None or parts.password is not None:
        raise wrong("a URL with a password would be shown; use the variable OTEL_EXPORTER_OTLP_HEADERS")
    return url


class TelemetrySpec(Section):
    """Where traces and metrics go besides /metrics."""

    otlp: Annotated[str | None, AfterValidator(lambda url: _collector(url) if url else None)] = Field(
        default=None,
        description="Base URL of an OpenTelemetry collector (OTLP over HTTP); none or empty sends nothing.",
    )


class ServerSpec(Section):
    """The `server` section."""

    listen: ListenAt = Field(
        default=Listen("127.0.0.1", 8080),
        description="HOST:PORT to listen on; :8080 means every interface, port 0 any free port.",
        json_schema_extra={"default": "127.0.0.1:8080"},
    )
    data: FolderToBe = Field(
        default=Path("data"),
        validate_default=True,
        description="The folder for everything that lasts, made when missing. Relative paths start at the recipe.",
    )
    keys: tuple[Key, ...] = Field(default=(), description="API keys; without any, no key is asked for.")
    limits: Limits = Field(default=Limits(), description="What the server refuses.")
    cors: tuple[WebOrigin, ...] = Field(
        default=(), description="Web origins that may call from a browser, besides those of this machine."
    )
    telemetry: TelemetrySpec = Field(default=TelemetrySpec(), description="OpenTelemetry.")


def doubles(keys: Mapping[int, Mapping[str, object]]) -> list[tuple[int, str, str]]:
    """Names and secrets that stand twice: position of the later key, the field at fault, a message without secrets."""
    seen: dict[tuple[str, str], int] = {}
    found = []
    for position, key in keys.items():
        for part in ("name", "secret"):
            value = key.get(part)
            if not isinstance(value, str):
                continue
            first = seen.setdefault((part, value), position)
            if first != position:
                found.append((position, part, f"server.keys.{first} has the same {part}"))
    return found
