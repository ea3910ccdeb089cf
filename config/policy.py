"""The `policies` section: what the server does by itself, at its times."""

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator

from config.bucket import Place
from config.knowledge import RedisUrl
from config.remote import ServerUrl
from config.schedule import Scheduled
from config.section import Count, Duration, Fraction, Name, Secret, Section, Size, wrong

What = Literal["models", "knowledge", "recipe"]


class Keep(Section):
    """Which snapshots stay. One that either key would keep stays, and the newest always does."""

    count: Count | None = Field(default=None, description="How many of the newest stay.")
    age: Duration | None = Field(default=None, description="Those that are not older than this stay, such as 90d.")


def _keep(value: object) -> object:
    """The short form is the count alone."""
    return {"count": value} if isinstance(value, int) and not isinstance(value, bool) else value


KeepSome = Annotated[Keep, BeforeValidator(_keep, json_schema_input_type=Count | Keep)]
"""A number of snapshots, or a Keep."""


def _identity(value: SecretStr) -> SecretStr:
    if not value.get_secret_value().startswith("AGE-SECRET-KEY-1"):
        raise wrong("is not an age identity, AGE-SECRET-KEY-1...; `hearth backup key` makes one")
    return value


Identity = Annotated[Secret, AfterValidator(_identity)]
"""An X25519 identity of age (age-encryption.org)."""


class BackupSpec(Scheduled):
    """Copies of models, knowledge and recipe, in which nothing is stored twice."""

    what: tuple[What, ...] = Field(
        default=("models", "knowledge", "recipe"),
        min_length=1,
        description="What is kept: the weights the recipe names, what collections and files hold, the recipe itself.",
    )
    to: Place = Field(description="Where to: a folder, or a bucket such as s3://my-bucket/hearth.")
    cold: Literal["include", "leave"] = Field(
        default="include",
        description="Whether documents in cold storage are kept too. They are read from there once; leave is for a "
        "store that is safe by itself.",
    )
    ipfs: ServerUrl | None = Field(
        default=None,
        description="The RPC address of an IPFS node such as http://127.0.0.1:5001, which imports and pins each "
        "snapshot. Without `key`, whoever learns its CID can read what a public node has.",
    )
    key: Identity | None = Field(
        default=None, description="An age identity for which everything is encrypted before it leaves this machine."
    )
    keep: KeepSome = Field(
        default=Keep(count=14),
        description="Which snapshots stay: how many, or {count, age}. The others go after a run.",
        json_schema_extra={"default": 14},
    )


class HotSpec(Section):
    """Answers to earlier searches, kept until their collection changes."""

    memory: Size = Field(
        default=64 * 2**20,
        description="How much memory answers to earlier searches may take; those asked for longest ago go first.",
        json_schema_extra={"default": "64MiB"},
    )
    redis: RedisUrl | None = Field(
        default=None,
        description="A Redis server that keeps them too, for several servers over the same tables and across starts; "
        "needs hearth[redis].",
    )
    username: str | None = Field(default=None, min_length=1, description="Who signs in to Redis, where it asks for it.")
    password: Secret | None = Field(default=None, description='Its password, as "${env:VARIABLE}" or "${file:path}".')


class ModelTiersSpec(Section):
    """How much memory models share, and where the weights of those go that nobody asks."""

    memory: Size | None = Field(
        default=None,
        description="How much memory loaded models may take together. Before one more is loaded, idle ones without "
        "`pin` are unloaded, the least recently used first. None bounds nothing.",
    )
    cold: Place | None = Field(
        default=None,
        description="Where the weights of models go that nobody asks: a bucket such as s3://weights-cold/hearth, or a "
        "folder; for this server alone. The next request brings them back. None moves nothing.",
    )
    after: Duration = Field(
        default=timedelta(days=30),
        description="How long a model is not asked before its weights move.",
        json_schema_extra={"default": "30d"},
    )

    @model_validator(mode="after")
    def _says_something(self) -> "ModelTiersSpec":
        if self.memory is None and self.cold is None:
            raise wrong("has neither `memory` nor `cold`, so nothing would be done")
        return self


class TieringSpec(Scheduled):
    """Documents and weights that nobody asks for move to cheaper storage, and models share memory."""

    hot: HotSpec = Field(default=HotSpec(), description="What is kept in memory of earlier searches.")
    cold: Place | None = Field(
        default=None,
        description="Where documents go that nobody asks for: a bucket such as s3://kb-cold/handbook, or a folder; for "
        "this server alone. None moves nothing.",
    )
    after: Duration = Field(
        default=timedelta(days=30),
        description="How long a document is neither changed nor found by a search before it moves.",
        json_schema_extra={"default": "30d"},
    )
    collections: tuple[Name, ...] | None = Field(
        default=None,
        description="The collections whose documents move; none takes all. Documents of the others come back.",
    )
    weak: Fraction = Field(
        default=0.4,
        description="Cold documents are searched too where the nearest chunk in local storage has a lower score than "
        "this, 0 to 1, or where fewer chunks are found than were asked for. 0 looks at the number alone.",
    )
    models: ModelTiersSpec | None = Field(
        default=None, description="What models share, and where their weights go; none bounds and moves nothing."
    )


class PoliciesSpec(Section):
    """The `policies` section."""

    tiering: TieringSpec | None = Field(
        default=None, description="What is kept in memory, on this machine's disk and in cheaper storage."
    )
    backup: BackupSpec | None = Field(default=None, description="Copies of what this server holds.")

    @property
    def declared(self) -> dict[str, Scheduled]:
        """The policies there are, by name."""
        found = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: spec for name, spec in found.items() if spec is not None}
