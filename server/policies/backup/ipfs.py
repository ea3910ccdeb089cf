"""Snapshots on IPFS: a node imports and pins them by its RPC, and any gateway gives them back.

RPC: https://docs.ipfs.tech/reference/kubo/rpc/ (`dag/import`, `pin/add`, `pin/rm`).
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Self

import httpx

from server.errors import ServiceError
from server.policies.backup import car
from server.policies.backup.cid import Cid
from server.policies.backup.packs import Packs
from server.policies.backup.snapshot import Snapshot
from server.policies.backup.unixfs import as_file

_CONNECT_S = 10.0
_IMPORT_S = 600.0
_PIN_S = 120.0
"""A node that lacks a block asks the network for it, for ever: after this long it is given all blocks again."""
_READ_S = 120.0

Reading = Callable[[str], bytes]
"""The CAR file that a node is given for a pack."""


class Node:
    """One node. A context manager; everything raises ServiceError with the node's own words."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._client = httpx.Client(base_url=f"{url}/api/v0/", trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def keep_folder(self, snapshot: Snapshot, packs: Packs) -> int:
        """Have the node pin the snapshot's CID; returns how many packs it was given for it."""
        return self._keep(snapshot, packs, [snapshot.cid], packs.whole)

    def keep_files(self, snapshot: Snapshot, packs: Packs) -> int:
        """Have the node pin the snapshot's packs as they are, encrypted; returns how many it was given."""
        return self._keep(snapshot, packs, list(snapshot.sealed), lambda name: _car_of(packs.whole(name)))

    def forget(self, gone: Iterable[Snapshot], rest: Iterable[Snapshot]) -> None:
        """Unpin what snapshots that went alone have needed. The node frees the room when it collects its garbage."""
        wanted = {cid for snapshot in rest for cid in _pins(snapshot)}
        for cid in {cid for snapshot in gone for cid in _pins(snapshot)} - wanted:
            try:
                self._ask("pin/rm", _CONNECT_S, arg=cid, recursive="true")
            except ServiceError as fault:
                if "not pinned" not in str(fault):
                    raise

    def _keep(self, snapshot: Snapshot, packs: Packs, roots: list[str], read: Reading) -> int:
        given = self._give(packs, packs.unpushed(self._url, snapshot.packs), read)
        try:
            self._pin(roots)
        except ServiceError:
            # It has let go of what it was given once, or is another node behind the same address.
            given = self._give(packs, list(snapshot.packs), read)
            self._pin(roots)
        return given

    def _pin(self, roots: list[str]) -> None:
        for cid in roots:
            self._ask("pin/add", _PIN_S, arg=cid, recursive="true")

    def _give(self, packs: Packs, names: list[str], read: Reading) -> int:
        for name in names:
            files = {"file": (f"{name}.car", read(name), "application/vnd.ipld.car")}
            told = self._ask("dag/import", _IMPORT_S, files=files, **{"pin-roots": "false"})
            if '"PinErrorMsg":"' in told and '"PinErrorMsg":""' not in told:
                raise ServiceError(f"{self._url} did not import the pack {name}: {told.strip()[:300]}")
            packs.pushed(self._url, name)
        return len(names)

    def _ask(self, path: str, seconds: float, files: object = None, **arguments: str) -> str:
        limit = httpx.Timeout(seconds, connect=_CONNECT_S)
        try:
            reply = self._client.post(path, params=arguments, files=files, timeout=limit)  # type: ignore[arg-type]  # as httpx has it
        except httpx.HTTPError as fault:
            raise ServiceError(f"The IPFS node {self._url} does not answer {path}: {fault}") from fault
        if reply.status_code != 200:
            raise ServiceError(f"The IPFS node {self._url} refuses {path}: {reply.text.strip()[:300]}")
        return reply.text


class Gateway:
    """Any gateway of the network, this machine's or a public one. What it gives is checked by whoever reads it."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        self._client = httpx.Client(trust_env=False, timeout=httpx.Timeout(_READ_S, connect=_CONNECT_S))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def file(self, cid: str) -> Iterator[bytes]:
        """The bytes of a file. Raises ServiceError where the gateway does not have it."""
        try:
            with self._client.stream("GET", f"{self._url}/ipfs/{cid}", follow_redirects=True) as reply:
                if reply.status_code != 200:
                    raise ServiceError(f"The gateway {self._url} answers {reply.status_code} to {cid}.")
                yield from reply.iter_bytes()
        except httpx.HTTPError as fault:
            raise ServiceError(f"The gateway {self._url} does not give {cid}: {fault}") from fault


def _pins(snapshot: Snapshot) -> tuple[str, ...]:
    return snapshot.sealed if snapshot.encrypted else (snapshot.cid,)


def _car_of(data: bytes) -> bytes:
    """A CAR file of the blocks that `data` is as a file."""
    blocks: list[tuple[Cid, bytes | memoryview[int]]] = []
    root = as_file(data, lambda cid, block: blocks.append((cid, block)))
    parts: list[bytes | memoryview[int]] = [car.header(root.cid)]
    for cid, block in blocks:
        parts += [car.before(cid, len(block)), block]
    return b"".join(parts)
