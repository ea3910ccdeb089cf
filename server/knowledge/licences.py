"""Which documents a collection may hold by their licence, and the licence of those that name none. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from config.knowledge import CollectionSpec
from config.licence import NotALicence, parsed
from server.knowledge.document import Document, digest
from server.knowledge.stored import Stored


@dataclass(frozen=True)
class Licences:
    """`allowed` is None where every licence is, and none at all too. `defaults` are by source."""

    allowed: tuple[str, ...] | None = None
    defaults: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, spec: CollectionSpec) -> "Licences":
        allowed = None if spec.licence is None else spec.licence.allow
        return cls(allowed, {source.name: source.licence for source in spec.sources if source.licence is not None})

    def applied(self, document: Document) -> Document:
        """The document with its source's licence where it names none; its hash tells that licence too."""
        default = self.defaults.get(document.source)
        if default is None or document.licence is not None:
            return document
        return replace(document, licence=default, hash=digest(document.hash, default))

    def is_same(self, stored: Stored, source: str, fingerprint: str) -> bool:
        """Whether the file of this hash, from `source`, would become what is stored."""
        default = self.defaults.get(source)
        names_its_own = default is None or stored.licence is not None
        hashes = {fingerprint} if names_its_own else set()
        if default is not None:
            hashes.add(digest(fingerprint, default))
        return stored.source == source and stored.hash in hashes

    def refusal(self, licence: str | None) -> str | None:
        """Why a document under this licence is not taken; None where it is."""
        if self.allowed is None:
            return None
        allowed = f"allowed here: {', '.join(self.allowed)}"
        if licence is None:
            return f"it names no licence; {allowed}"
        try:
            expression = parsed(licence)
        except NotALicence as error:
            return f"its licence {licence[:80]!r} is no SPDX expression: {error}; {allowed}"
        return None if expression.is_allowed(self.allowed) else f"its licence {licence[:80]} is not allowed; {allowed}"
