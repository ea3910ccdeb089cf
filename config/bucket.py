"""Where a policy keeps things: a folder, or a bucket of an S3-compatible store; reads and writes neither."""

import re
from collections.abc import Mapping
from typing import Annotated

from pydantic import BeforeValidator, Discriminator, Field, PlainValidator, Tag, WithJsonSchema, model_validator

from config.places import FolderToBe
from config.remote import ServerUrl
from config.section import PLACEHOLDER, Flag, Outside, Secret, Section, shown, text_of, wrong

_BUCKET = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9!_.*'()=+-]+)*/?")


def _bucket_url(value: object) -> str:
    text = text_of(value)
    if not _BUCKET.fullmatch(text) or "/.." in text or "/./" in text:
        plain = "this value" if isinstance(value, Outside) else shown(text)
        raise wrong(f"{plain} is not a bucket such as s3://my-bucket/hearth")
    return text.rstrip("/")


BucketUrl = Annotated[
    str, PlainValidator(_bucket_url), WithJsonSchema({"type": "string", "pattern": rf"^s3://[^\s]+$|{PLACEHOLDER}"})
]
"""s3://BUCKET or s3://BUCKET/PREFIX."""


class Bucket(Section):
    """A bucket of Amazon S3 or of any store that speaks its protocol and honours conditional puts."""

    url: BucketUrl = Field(description="s3://BUCKET/PREFIX.")
    endpoint: ServerUrl | None = Field(
        default=None, description="The URL of a store that is not Amazon's, such as http://nas:9000."
    )
    region: str = Field(default="us-east-1", min_length=1, description="The store's region.")
    access_key: str | None = Field(
        default=None, min_length=1, description="The name of the key; none reads AWS_ACCESS_KEY_ID."
    )
    secret_key: Secret | None = Field(default=None, description="The key's secret; none reads AWS_SECRET_ACCESS_KEY.")
    virtual_host: Flag = Field(
        default=False, description="Whether the bucket's name stands in the host name instead of the path."
    )

    @model_validator(mode="after")
    def _whole_key(self) -> "Bucket":
        if (self.access_key is None) != (self.secret_key is None):
            raise wrong("has one of `access_key` and `secret_key`; a key is both")
        return self

    @property
    def name(self) -> str:
        return self.url.removeprefix("s3://").partition("/")[0]

    @property
    def prefix(self) -> str:
        """Below which everything stands, without slashes around it; empty for the whole bucket."""
        return self.url.removeprefix("s3://").partition("/")[2]


def _bucket(value: object) -> object:
    """The short form is the URL alone."""
    return {"url": value} if isinstance(value, str) else value


BucketAt = Annotated[Bucket, BeforeValidator(_bucket, json_schema_input_type=BucketUrl | Bucket)]
"""A bucket's URL, or a Bucket."""

PLACES = ("folder", "bucket")
"""The kinds of a Place, as pydantic names them in the place of a fault."""


def _kind(value: object) -> str:
    bucket = isinstance(value, Mapping | Bucket) or (isinstance(value, str) and "://" in value)
    return "bucket" if bucket else "folder"


Place = Annotated[Annotated[FolderToBe, Tag("folder")] | Annotated[BucketAt, Tag("bucket")], Discriminator(_kind)]
"""The path of a folder, or a bucket."""
