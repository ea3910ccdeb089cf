"""The `server` section: where Hearth listens, who may ask, and how much at once."""

from datetime import timedelta
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from config.key import Key, Rates
from config.places import FileToBe, FolderToBe, Listen, ListenAt
from config.section import Count, Duration, HostName, Section, Size, WebOrigin, wrong


class Limits(Rates):
    """What the server refuses before it costs anything. The rates hold for each key; without keys, for all together."""

    body: Size = Field(default=64 * 2**20, description="The largest request body, such as 64MiB.")
    queue: Count = Field(default=64, description="How many requests may wait for one model; more are answered 429.")
    connections: Count = Field(
        default=1024,
        description="How many connections may be open; for one more, that which has been idle longest is closed.",
    )
    header_timeout: Duration = Field(
        default=timedelta(seconds=10),
        validate_default=True,
        description="How long the head of a request may take; then it is answered 408 and its connection closed.",
        json_schema_extra={"default": "10s"},
    )
    body_timeout: Duration = Field(
        default=timedelta(seconds=30),
        validate_default=True,
        description="How long nothing may come of a body, or less than 1 KiB a second; then it is answered 408.",
        json_schema_extra={"default": "30s"},
    )
    write_timeout: Duration = Field(
        default=timedelta(seconds=30),
        validate_default=True,
        description="How long a client may leave its answer unread; then the answer is given up.",
        json_schema_extra={"default": "30s"},
    )


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


class ResponsesSpec(Section):
    """What the Responses API keeps for `previous_response_id` and for reading again, in server.data."""

    keep: Duration = Field(
        default=timedelta(days=30),
        description="A response that was not used for this long is forgotten, such as 30d.",
        json_schema_extra={"default": "30d"},
    )
    most: Count = Field(default=1000, description="How many are kept; the least recently used beyond it are forgotten.")


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
    keys_file: FileToBe | None = Field(
        default=None,
        description="A file of further keys, kept by `hearth keys`; where it is declared, a key is always asked for.",
    )
    limits: Limits = Field(default=Limits(), description="What the server refuses.")
    cors: tuple[WebOrigin, ...] = Field(
        default=(), description="Web origins that may call from a browser, besides those of this machine."
    )
    hosts: tuple[HostName, ...] = Field(
        default=(),
        description="Names under which a server on loopback without keys is reached, besides those of this machine: "
        "what a proxy in front of it is called.",
    )
    keep_alive: Duration = Field(
        default=timedelta(seconds=15),
        validate_default=True,
        description="How often a stream that has nothing to say yet sends a comment, so that nobody takes it for dead.",
        json_schema_extra={"default": "15s"},
    )
    responses: ResponsesSpec = Field(default=ResponsesSpec(), description="What the Responses API keeps.")
    telemetry: TelemetrySpec = Field(default=TelemetrySpec(), description="OpenTelemetry.")

    @property
    def asks_for_keys(self) -> bool:
        """Whether requests need a key: also with a keys file in which there is none yet."""
        return bool(self.keys) or self.keys_file is not None
