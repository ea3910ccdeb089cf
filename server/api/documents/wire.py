"""What `/v1/knowledge/{collection}/documents` takes and answers."""

from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from server.knowledge import RefusedLine

AttributeValue = str | int | float | bool


class PushDocument(msgspec.Struct, forbid_unknown_fields=True):
    """`text` is Markdown, whose front matter may give what stands beside it here; what is sent beside it goes before.

    `licence` is an SPDX expression such as CC-BY-4.0. With a `vector` the text is one chunk and is not embedded: it has
    as many numbers as the vectors of the collection's model, which has to have made it, for it embeds the questions.
    """

    text: str
    title: Annotated[str, Meta(max_length=512)] | None = None
    attributes: dict[str, AttributeValue] | None = None
    licence: Annotated[str, Meta(min_length=1, max_length=500)] | None = None
    vector: list[float] | None = None


class DocumentLine(msgspec.Struct, forbid_unknown_fields=True):
    """One line: a document in place of what `id` is now, as PushDocument; with `"text": null` that document goes."""

    id: Annotated[str, Meta(min_length=1, max_length=512)]
    text: str | None
    title: str | None = None
    attributes: dict[str, AttributeValue] | None = None
    licence: str | None = None
    vector: list[float] | None = None


class DocumentsPushed(msgspec.Struct):
    """What became of the lines; all that was `written` is searchable. `unchanged` were so already, or gone already.

    `refused` counts lines that were not taken, `refusals` tells the first 1,000 of them with their numbers and reasons.
    """

    collection: str
    written: int
    unchanged: int
    deleted: int
    refused: int
    refusals: list[RefusedLine]
    object: Literal["knowledge.documents.pushed"] = "knowledge.documents.pushed"


class KnowledgeDocument(msgspec.Struct):
    """`bytes` are those of its chunks' texts and vectors."""

    id: str
    collection: str
    uri: str
    filename: str
    title: str
    licence: str | None
    attributes: Mapping[str, AttributeValue]
    bytes: int
    object: Literal["knowledge.document"] = "knowledge.document"


class KnowledgeDocumentList(msgspec.Struct):
    data: list[KnowledgeDocument]
    first_id: str | None
    last_id: str | None
    has_more: bool
    object: Literal["list"] = "list"


class KnowledgeDocumentDeleted(msgspec.Struct):
    id: str
    deleted: bool
    object: Literal["knowledge.document.deleted"] = "knowledge.document.deleted"
