"""Responses that are kept: to be read again, continued by `previous_response_id`, referred to item by item.

What was not used for longer than `server.responses.keep` goes, and the least recently used beyond `most` do.
"""

import sqlite3
import time
from collections.abc import Iterable, Sequence

import msgspec

from config.server import ResponsesSpec
from server.api.responses.items import Json
from server.errors import NotFound, PreviousResponseNotFound
from server.state import State, Tables

TABLES = Tables(
    "responses",
    (
        "CREATE TABLE responses (id TEXT PRIMARY KEY, owner TEXT NOT NULL, previous TEXT, used REAL NOT NULL, "
        "body BLOB NOT NULL)",
        "CREATE INDEX responses_by_use ON responses (used)",
        "CREATE TABLE responses_items ("
        "response TEXT NOT NULL REFERENCES responses (id) ON DELETE CASCADE, place INTEGER NOT NULL, "
        "said INTEGER NOT NULL, id TEXT NOT NULL, body BLOB NOT NULL, PRIMARY KEY (response, place)) WITHOUT ROWID",
        "CREATE INDEX responses_items_by_id ON responses_items (id)",
    ),
)
"""`owner` is the name of the key, empty without keys; `previous` the response that one continues; `used` Unix seconds;
`said` tells the model's items from the input.
"""

_json = msgspec.json.Decoder(Json)


class Kept:
    """The kept responses of one `owner`; to others it is as if they were not there."""

    def __init__(self, state: State, spec: ResponsesSpec, owner: str) -> None:
        self._state = state
        self._owner = owner
        self._keep = spec.keep.total_seconds()
        self._most = spec.most

    async def put(
        self,
        name: str,
        previous: str | None,
        body: bytes,
        *,
        earlier: Sequence[Json],
        given: Sequence[Json],
        output: Sequence[Json],
    ) -> None:
        """Keep a response: `body` is its JSON, `earlier` are the items up to the end of `previous`, the others its own.

        Where `previous` is not kept, as in a connection that goes on with what it alone remembers, its items are.
        """

        def work(connection: sqlite3.Connection) -> None:
            known = previous if self._has(connection, previous) else None
            own = [*given] if known == previous else [*earlier, *given]
            rows = [
                (name, place, place >= len(own), item["id"], msgspec.json.encode(item))
                for place, item in enumerate([*own, *output])
            ]
            connection.execute(
                "INSERT INTO responses VALUES (?, ?, ?, ?, ?)", (name, self._owner, known, time.time(), body)
            )
            connection.executemany("INSERT INTO responses_items VALUES (?, ?, ?, ?, ?)", rows)
            self._forget(connection)

        await self._state.run(TABLES, work)

    async def get(self, name: str) -> bytes:
        """The JSON of a response. Raises NotFound."""

        def work(connection: sqlite3.Connection) -> bytes:
            self._forget(connection)
            row = connection.execute(
                "SELECT body FROM responses WHERE id = ? AND owner = ?", (name, self._owner)
            ).fetchone()
            if row is None:
                raise _not_found(name)
            return bytes(row[0])

        return await self._state.run(TABLES, work)

    async def delete(self, name: str) -> None:
        """Forget a response and its items. Raises NotFound."""

        def work(connection: sqlite3.Connection) -> None:
            if not connection.execute("DELETE FROM responses WHERE id = ? AND owner = ?", (name, self._owner)).rowcount:
                raise _not_found(name)

        await self._state.run(TABLES, work)

    async def conversation(self, name: str) -> list[Json]:
        """All items up to the end of a response, those of the ones it continues first.

        Raises PreviousResponseNotFound where it, or one before it, is not kept.
        """

        def work(connection: sqlite3.Connection) -> list[Json]:
            self._forget(connection)
            chain = self._chain(connection, name)
            connection.executemany(
                "UPDATE responses SET used = ? WHERE id = ?", [(time.time(), each) for each in chain]
            )
            return [item for each in chain for item in _items(connection, each)]

        return await self._state.run(TABLES, work)

    async def input(self, name: str) -> list[Json]:
        """The items that a response answered, all of them. Raises NotFound."""

        def work(connection: sqlite3.Connection) -> list[Json]:
            self._forget(connection)
            row = connection.execute(
                "SELECT previous FROM responses WHERE id = ? AND owner = ?", (name, self._owner)
            ).fetchone()
            if row is None:
                raise _not_found(name)
            chain = self._chain(connection, row[0]) if row[0] is not None else []
            before = [item for each in chain for item in _items(connection, each)]
            return [*before, *_items(connection, name, said=0)]

        return await self._state.run(TABLES, work)

    async def items(self, names: Iterable[str]) -> dict[str, Json]:
        """The items of these ids, as far as they are kept."""
        wanted = list(names)

        def work(connection: sqlite3.Connection) -> dict[str, Json]:
            self._forget(connection)
            found = {}
            for name in wanted:
                row = connection.execute(
                    "SELECT i.body FROM responses_items i JOIN responses r ON r.id = i.response "
                    "WHERE i.id = ? AND r.owner = ? ORDER BY r.used DESC LIMIT 1",
                    (name, self._owner),
                ).fetchone()
                if row is not None:
                    found[name] = _json.decode(row[0])
            return found

        return await self._state.run(TABLES, work) if wanted else {}

    def _has(self, connection: sqlite3.Connection, name: str | None) -> bool:
        """Whether a response and all it continues are kept."""
        try:
            return name is not None and bool(self._chain(connection, name))
        except PreviousResponseNotFound:
            return False

    def _chain(self, connection: sqlite3.Connection, name: str) -> list[str]:
        """A response and those it continues, oldest first."""
        chain: list[str] = []
        following: str | None = name
        while following is not None:
            row = connection.execute(
                "SELECT previous FROM responses WHERE id = ? AND owner = ?", (following, self._owner)
            ).fetchone()
            if row is None:
                raise PreviousResponseNotFound.of(following)
            chain.append(following)
            following = row[0]
        return chain[::-1]

    def _forget(self, connection: sqlite3.Connection) -> None:
        """Let go what is past its time, or too much."""
        connection.execute("DELETE FROM responses WHERE used < ?", (time.time() - self._keep,))
        connection.execute(
            "DELETE FROM responses WHERE id IN "
            "(SELECT id FROM responses ORDER BY used DESC, rowid DESC LIMIT -1 OFFSET ?)",
            (self._most,),
        )


def _items(connection: sqlite3.Connection, name: str, said: int = 1) -> list[Json]:
    """A response's own items in order; with `said` 0 without what the model said."""
    rows = connection.execute(
        "SELECT body FROM responses_items WHERE response = ? AND said <= ? ORDER BY place", (name, said)
    )
    return [_json.decode(row[0]) for row in rows]


def _not_found(name: str) -> NotFound:
    return NotFound(f"Response with id '{name[:80]}' not found.", param="response_id")
