"""What `/v1/files` takes and answers, as OpenAI's document has it."""

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from server.api.listing import ListQuery

Purpose = Literal["assistants", "batch", "fine-tune", "vision", "user_data", "evals"]


class FileUpload(msgspec.Struct):
    """The parts of the multipart body. An expiry is both of its parts, or neither."""

    file: Annotated[str, Meta(extra_json_schema={"format": "binary"})]
    purpose: Purpose
    anchor: Literal["created_at"] | UnsetType = msgspec.field(default=UNSET, name="expires_after[anchor]")
    seconds: Annotated[int, Meta(ge=3600, le=2_592_000)] | UnsetType = msgspec.field(
        default=UNSET, name="expires_after[seconds]"
    )


class FilesQuery(ListQuery):
    """Which files are listed."""

    limit: Annotated[int, Meta(ge=1, le=10_000)] = 10_000
    purpose: str | UnsetType = UNSET


class FileObject(msgspec.Struct):
    """One file. `bytes` is its size; `status` says that it is here, which is all there is to say of a file."""

    id: str
    bytes: int
    created_at: int
    expires_at: int | None
    filename: str
    purpose: str
    object: Literal["file"] = "file"
    status: Literal["uploaded", "processed", "error"] = "processed"
    status_details: str | None = None


class FileList(msgspec.Struct):
    data: list[FileObject]
    first_id: str | None
    last_id: str | None
    has_more: bool
    object: Literal["list"] = "list"


class FileDeleted(msgspec.Struct):
    id: str
    deleted: bool
    object: Literal["file"] = "file"
