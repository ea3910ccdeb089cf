"""Makes sure that a place is fit for cold storage, and this server's alone: two that write there would lose documents.

Blocks.
"""

from pathlib import Path

import msgspec

from config.bucket import Bucket
from server.errors import Conflict
from server.place import Place

_NAME = "hearth-cold.json"


class _Owner(msgspec.Struct):
    owner: str


def claim(where: Path | Bucket, owner: str, key: str = "policies.tiering.cold") -> None:
    """Raises ServiceError where it cannot be reached or ignores conditional puts, Conflict where it is another's."""
    place = Place(where)
    if isinstance(where, Bucket):
        place.probe()
    if place.make(_NAME, msgspec.json.encode(_Owner(owner))):
        return
    if msgspec.json.decode(place.get(_NAME), type=_Owner).owner != owner:
        raise Conflict(
            f"The cold storage in {place} belongs to another data directory. Name a place of its own under "
            f"{key}, or remove {_NAME} there if that directory is gone."
        )
