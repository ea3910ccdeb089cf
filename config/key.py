"""An API key: who holds it, what it opens, how much it may; and its hash, by which it is known."""

import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Literal, Self

from pydantic import Field, PlainSerializer, PlainValidator, WithJsonSchema, model_validator

from config.section import PLACEHOLDER, Count, Name, Secret, Section, Size, shown, text_of, wrong

Scope = Literal["infer", "retrieve", "ingest", "admin"]


def _moment(value: object) -> datetime:
    if isinstance(value, datetime):
        return value
    try:
        found = datetime.fromisoformat(text_of(value).strip())
    except ValueError:
        raise wrong(f"{shown(value)} is not a time such as 2027-01-31T00:00:00Z") from None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


Moment = Annotated[
    datetime,
    PlainValidator(_moment),
    PlainSerializer(datetime.isoformat, return_type=str),
    WithJsonSchema({"type": "string", "pattern": rf"^[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}([T ].*)?$|{PLACEHOLDER}"}),
]
"""A point in time, with its zone: 2027-01-31T00:00:00Z, or 2027-01-31, when that day begins in UTC."""


def _sha256(value: object) -> str:
    text = text_of(value)
    if not re.fullmatch(r"sha256:[0-9a-fA-F]{64}", text):
        raise wrong('should be "sha256:" and 64 hexadecimal digits')  # never shown: it may be the secret itself
    return text.lower()


Sha256 = Annotated[
    str,
    PlainValidator(_sha256),
    WithJsonSchema({"type": "string", "pattern": f"^sha256:[0-9a-fA-F]{{64}}$|{PLACEHOLDER}"}),
]
"""The hash of a secret: sha256:, then 64 hexadecimal digits."""


class Rates(Section):
    """How much one caller may use in a minute. All of a minute's worth may be used at once after a minute of rest."""

    requests_per_minute: Count | None = Field(
        default=None, description="How many requests a minute one key may send; more are answered 429."
    )
    tokens_per_minute: Count | None = Field(
        default=None,
        description="How many tokens a minute one key may use, prompts and answers together; more are answered 429.",
    )


class KeyLimits(Rates):
    """Limits of one key; what is left out is as server.limits says."""

    body: Size | None = Field(
        default=None, description="The largest request body, at most server.limits.body, such as 1MiB."
    )
    queue: Count | None = Field(
        default=None, description="How many of its requests may wait for one model; more are answered 429."
    )


class Key(Section):
    """An API key. As soon as one is declared, every request has to carry one."""

    name: Name = Field(description="Who holds the key; appears in logs, the secret never does.")
    secret: Secret | None = Field(
        default=None,
        description='What the client sends as "Authorization: Bearer ...", at least 8 characters. '
        'Write it as "${env:VARIABLE}" or "${file:path}".',
    )
    hash: Sha256 | None = Field(
        default=None,
        description='Instead of the secret, its SHA-256 as "sha256:HEX": only for long random secrets.',
    )
    scopes: Annotated[frozenset[Scope], PlainSerializer(sorted, return_type=list[str])] = Field(
        default=frozenset({"infer", "retrieve"}),
        min_length=1,
        description="What the key opens: infer (chat, embeddings), retrieve (search), ingest (files, documents), "
        "admin (everything).",
        json_schema_extra={"default": ["infer", "retrieve"]},
    )
    expires: Moment | None = Field(
        default=None,
        description="When the key stops working, such as 2027-01-31T00:00:00Z; without a zone UTC is meant.",
    )
    limits: KeyLimits = Field(default=KeyLimits(), description="Limits of this key, instead of those of all.")

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.secret is None) == (self.hash is None):
            raise wrong("a key has either a secret or a hash" if self.secret is None else "a secret needs no hash")
        return self

    @property
    def digest(self) -> str:
        """The hash, declared or of the declared secret."""
        return self.hash if self.secret is None else digest(self.secret.get_secret_value())  # type: ignore[return-value]  # one of both is there


def digest(secret: str) -> str:
    """A secret as it is kept and looked up.

    Plain SHA-256 and no slow hash: those are for secrets that can be guessed. A key of `hearth keys add` has 256
    random bits, which nobody finds by trying, and every request would pay for the slowness.
    """
    return f"sha256:{hashlib.sha256(secret.encode('utf-8', 'surrogateescape')).hexdigest()}"


def doubles(keys: Mapping[int, Mapping[str, object]]) -> list[tuple[int, str, str]]:
    """Names and secrets that stand twice: position of the later key, the field at fault, a message without secrets."""
    seen: dict[tuple[str, str], int] = {}
    found = []
    for position, key in keys.items():
        for part, kind, value in _distinct(key):
            first = seen.setdefault((kind, value), position)
            if first != position:
                found.append((position, part, f"server.keys.{first} has the same {kind}"))
    return found


def _distinct(key: Mapping[str, object]) -> list[tuple[str, str, str]]:
    """What no other key may have: the field, what it stands for, its value; a secret equals the hash of it."""
    name, secret, known = key.get("name"), key.get("secret"), key.get("hash")
    return [
        *([("name", "name", name)] if isinstance(name, str) else []),
        *([("secret", "secret", digest(secret))] if isinstance(secret, str) else []),
        *([("hash", "secret", known.lower())] if isinstance(known, str) else []),
    ]
