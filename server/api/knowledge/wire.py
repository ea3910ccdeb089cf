"""What `/v1/knowledge` answers of whole collections; their documents are in a family of their own."""

from typing import Literal

import msgspec

from server.knowledge import IndexState, Rebuilding


class KnowledgeSource(msgspec.Struct):
    """`state` is connecting, following, waiting, or at_start where its files are read at each start alone.

    `messages` and `refused` count since the start. `lag_seconds` is how long the last message took to be searchable,
    `behind` how many are still to be read, where the broker tells. `last_at` is when the last message was sent, or the
    files were last synced, in seconds since 1970. `dead_letters` are refused messages that are kept.
    """

    source: str
    state: str
    error: str | None
    messages: int
    refused: int
    lag_seconds: float | None
    behind: int | None
    last_at: float | None
    dead_letters: int


class KnowledgeCollection(msgspec.Struct):
    """`state` is opening, syncing, ready or failed; not_loaded is told by the terminal alone, while no server runs.

    What is read from the table is null while it is not open. `bytes` are on disk, earlier `versions` included; `hot`
    rows are searched in memory; `unindexed` ones one by one; `cold` documents are in cold storage, and not among the
    others; `rebuild` is a new index that is to take this one's place. `refused` files were not taken in. `error` is the
    last fault of the collection, `maintenance_error` of the last pass of its maintenance, which failed `failures`
    times.
    """

    id: str
    state: str
    error: str | None
    embed: str
    documents: int | None
    chunks: int | None
    version: int | None
    bytes: int | None
    fragments: int | None
    unindexed: int | None
    versions: int | None
    hot: int | None
    cold: int | None
    indices: list[IndexState] | None
    rebuild: Rebuilding | None
    sources: list[KnowledgeSource]
    dead_letters: int
    refused: int
    failures: int
    maintenance_error: str | None
    object: Literal["knowledge.collection"] = "knowledge.collection"


class KnowledgeCollectionList(msgspec.Struct):
    data: list[KnowledgeCollection]
    object: Literal["list"] = "list"


class KnowledgeRefused(msgspec.Struct):
    """A file that was not taken in. `brought` is the path that was ingested, null for the sources of the recipe."""

    id: str
    uri: str
    brought: str | None
    reason: str
    refused_at: int
    object: Literal["knowledge.refused"] = "knowledge.refused"


class KnowledgeRefusedList(msgspec.Struct):
    data: list[KnowledgeRefused]
    first_id: str | None
    last_id: str | None
    has_more: bool
    object: Literal["list"] = "list"


class KnowledgeDeadLetter(msgspec.Struct):
    """A message that was refused. `excerpt` is how it begins; `whole` says that all of it is kept, for another try."""

    id: str
    collection: str
    source: str
    partition: str
    offset: int
    key: str | None
    reason: str
    excerpt: str
    whole: bool
    sent_at: int
    object: Literal["knowledge.dead_letter"] = "knowledge.dead_letter"


class KnowledgeDeadLetterList(msgspec.Struct):
    data: list[KnowledgeDeadLetter]
    first_id: str | None
    last_id: str | None
    has_more: bool
    object: Literal["list"] = "list"


class KnowledgeDeadLetterRetried(msgspec.Struct):
    """`outcome` is taken, or outdated where a newer message of the same document is in force already."""

    id: str
    outcome: Literal["taken", "outdated"]
    object: Literal["knowledge.dead_letter.retried"] = "knowledge.dead_letter.retried"


class KnowledgeDeadLetterDeleted(msgspec.Struct):
    id: str
    deleted: bool
    object: Literal["knowledge.dead_letter.deleted"] = "knowledge.dead_letter.deleted"
