"""The values a collection is made of: document, chunk and hit. Knows neither files nor the store."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from server.knowledge.outline import Block

AttributeValue = str | int | float | bool

DECLARED = ("files:", "kafka:", "redis:", "nats:")
"""How the names of sources begin that the recipe declares."""


GIVEN = "given-"
"""How the hash of a document begins whose vector was given."""


class Unreadable(Exception):
    """The file gives no document; the message says why in words for its owner."""


class Unsupported(Unreadable):
    """The file may be sound, but nothing here reads its format."""


def encodable(text: str) -> str:
    """`text` with lone surrogates replaced one for one, so that it can be stored and no span moves."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def given_vector(numbers: Sequence[float]) -> NDArray[np.float32]:
    """A vector that came with its document. Raises Unreadable where it points nowhere."""
    with np.errstate(over="ignore"):
        found = np.asarray(numbers, np.float64).astype(np.float32)
    if not np.isfinite(found).all():
        raise Unreadable("its vector holds numbers that are not finite in 32 bits")
    if not found.any():
        raise Unreadable("its vector is all zeros, which has no direction")
    return found


def document_id(path: Path) -> str:
    """The stable id of the document that lies at `path`, which is absolute and resolved."""
    return f"file-{digest(str(path))}"


def digest(*parts: str) -> str:
    """32 hexadecimal digits; no two lists of parts share one by running into each other."""
    state = blake2b(digest_size=16)
    for part in parts:
        raw = part.encode("utf-8", "surrogatepass")
        state.update(len(raw).to_bytes(8, "little") + raw)
    return state.hexdigest()


def joined(ordered: Iterable[Mapping[str, Any]], start: int) -> str:
    """The text of chunks' rows in their order, from the document's character `start` on.

    What they repeat of one another stands there once, and white space between them as blank lines.
    """
    parts: list[str] = []
    at = start
    for row in ordered:
        if at < row["end"]:
            parts += ["\n" * (row["start"] - at), row["text"][max(0, at - row["start"]) :]]
            at = max(at, row["start"]) + len(parts[-1])
    return "".join(parts)


@dataclass(frozen=True, kw_only=True)
class Document:
    """One text with what is known of it. Chunks are cut from `text[body:]`; spans are characters of `text`.

    `outline` is its blocks where its format tells them; None has them read from the text, as Markdown or as prose.
    `pages` is where each page begins, the first page first; empty where it has none. `licence` is what its owner
    wrote, an SPDX expression as a rule.
    `vector` is what its owner had its text embedded as, float32 [dimension]: such a document is one chunk.
    `hash` tells whether it changed; empty stands for the hash of what the document holds. `source` says who brought it,
    `path` where it lies, None where it lies nowhere.
    """

    id: str
    uri: str
    filename: str
    text: str
    title: str = ""
    markdown: bool = True
    body: int = 0
    outline: tuple[Block, ...] | None = None
    pages: tuple[int, ...] = ()
    licence: str | None = None
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict)
    source: str = "upsert"
    path: str | None = None
    hash: str = ""
    vector: NDArray[np.float32] | None = field(default=None, compare=False)  # its hash is compared

    @property
    def is_declared(self) -> bool:
        """Whether a source that the recipe declares brought it."""
        return self.source.startswith(DECLARED)

    def __post_init__(self) -> None:
        for name in ("id", "uri", "filename", "text", "title"):
            object.__setattr__(self, name, encodable(getattr(self, name)))
        if not self.hash:
            held = [self.title, self.text, repr(sorted(self.attributes.items())), self.licence or ""]
            if self.vector is None:
                object.__setattr__(self, "hash", digest(*held))
            else:
                object.__setattr__(self, "hash", GIVEN + digest(*held, self.vector.tobytes().hex()))


@dataclass(frozen=True)
class Chunk:
    """`document.text[start:end] == text`. `heading` is the path of headings above it, outermost first.

    `context` is what is embedded and indexed before the text: title and headings that the text itself does not show.
    `tokens` counts the text alone. `page` is the one it begins on, from 1.
    """

    text: str
    start: int
    end: int
    heading: tuple[str, ...]
    context: str
    tokens: int
    page: int | None = None

    @property
    def indexed(self) -> str:
        """What is embedded and searched for words."""
        return f"{self.context}\n\n{self.text}" if self.context else self.text


class Hit(msgspec.Struct, frozen=True):
    """One chunk that was found. `score` is 0 to 1, higher is nearer, and compares within one search mode.

    `scores` holds the raw ones: `vector` (cosine), `text` (BM25), `rerank` (of a model that put hits in order).
    `start`:`end` are characters of the document's text. `heading` joins the path with " > ". `page` is the one the
    chunk begins on, None where the document has no pages; `licence` is the document's. `tier` is where it was found.
    """

    id: str
    collection: str
    document_id: str
    filename: str
    uri: str
    title: str
    heading: str
    text: str
    score: float
    scores: dict[str, float]
    start: int
    end: int
    token_count: int
    attributes: dict[str, AttributeValue]
    page: int | None = None
    licence: str | None = None
    tier: Literal["warm", "cold"] = "warm"
