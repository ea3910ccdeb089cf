"""Where backups and cold weights lie: a folder or a bucket, of which one process at a time changes what is there.

Blocks, so it is for processes of their own.
"""

import contextlib
import errno
import fcntl
import json
import mmap
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import obstore
from obstore import exceptions as faults
from obstore.store import LocalStore, S3Store

from config.bucket import Bucket
from server.errors import Conflict, NotFound, ServiceError

_LEASE_S = 120.0
_RENEW_S = 30.0
_LEASE = "lease.json"
_PROBE = "probe"
_CHUNK = 8 * 1024 * 1024
_MOST_PARTS = 9_000
"""Parts of one upload, of which stores take 10,000."""
_AT_ONCE = 2
"""Parts under way at once: each is held in memory."""

Told = Callable[[int], None]
"""Hears how many bytes more were read."""


class Place:
    """One folder or bucket. Everything raises ServiceError with the place and the reason, NotFound for what is not
    there; what was put is there whole or not at all."""

    def __init__(self, where: Path | Bucket) -> None:
        self.where = where
        self._store: Any = _folder(where) if isinstance(where, Path) else _bucket(where)
        self._lost: str | None = None
        """Why the lease that `held` took is another's now, perhaps."""

    def __str__(self) -> str:
        return str(self.where) if isinstance(self.where, Path) else self.where.url

    def put(self, name: str, data: bytes) -> None:
        with self._changing():
            if isinstance(self.where, Path):
                _write(self.where / name, data)
            else:
                # Whole: an upload in parts would be left there by a process that is killed.
                obstore.put(self._store, name, data, use_multipart=False)

    def gather(self, folder: str, pieces: "Iterable[memoryview[int]]", name: Callable[[], str]) -> None:
        """One large file in `folder`, of pieces of which each is done with before the next one is asked for; its name
        is asked at last. A folder takes pieces that begin with a page of memory straight to the disk."""
        if isinstance(self.where, Path):
            with self._changing():
                _gather(self.where / folder, pieces, name)
        else:
            data = b"".join(map(bytes, pieces))
            self.put(f"{folder}/{name()}", data)

    def send(self, name: str, file: BinaryIO, size: int, told: Told) -> None:
        """What `file` has left to read, `size` bytes, put without being held in memory; `told` hears how many bytes
        more were read. It outlasts a loss of power once this returns."""
        chunk = max(_CHUNK, size // _MOST_PARTS + 1)
        with self._changing():
            if isinstance(self.where, Path):
                _copy(self.where / name, _chunks(file, chunk, told))
            else:
                obstore.put(
                    self._store,
                    name,
                    _chunks(file, chunk, told),
                    use_multipart=size > chunk,
                    chunk_size=chunk,
                    max_concurrency=_AT_ONCE,
                )

    def stream(self, name: str) -> Iterator[bytes]:
        """The bytes of one file in parts, as the disk or the store has them rather than the system's memory."""
        with self._faults():
            if isinstance(self.where, Path):
                with (self.where / name).open("rb") as file:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                    yield from _chunks(file, _CHUNK, lambda _: None)
            else:
                for part in obstore.get(self._store, name).stream(min_chunk_size=_CHUNK):
                    yield bytes(part)

    def make(self, name: str, data: bytes) -> bool:
        """Put what is not there yet; False where it is."""
        with self._changing():
            try:
                obstore.put(self._store, name, data, mode="create", use_multipart=False)
            except faults.AlreadyExistsError:
                return False
        return True

    def get(self, name: str) -> bytes:
        with self._faults():
            return bytes(obstore.get(self._store, name).bytes())

    def part(self, name: str, begin: int, length: int) -> bytes:
        if not length:  # the store takes it for a mistake
            return b""
        with self._faults():
            return bytes(obstore.get_range(self._store, name, start=begin, length=length))

    def names(self, prefix: str) -> dict[str, int]:
        """What begins with `prefix`, a folder's name, and how many bytes each has."""
        with self._faults():
            return {each["path"]: each["size"] for page in obstore.list(self._store, prefix) for each in page}

    def delete(self, names: list[str]) -> None:
        for name in names:
            with self._changing(), contextlib.suppress(faults.NotFoundError, FileNotFoundError):
                obstore.delete(self._store, name)

    def settle(self, names: list[str]) -> None:
        """Return once these outlast a loss of power; a bucket's store has seen to it."""
        if not isinstance(self.where, Path):
            return
        with self._faults():
            for path in [self.where / name for name in names]:
                _sync(path)
            for folder in {(self.where / name).parent for name in names}:
                _sync(folder)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Nobody else changes what is here while the block lasts. Raises Conflict while another does."""
        with self._locked() if isinstance(self.where, Path) else self._leased():
            yield

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """By a lock of the system's, which ends with the process however it ends."""
        assert isinstance(self.where, Path)
        with self._faults():
            file = os.open(self.where / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Conflict(f"Another run is changing the backup in {self}.") from None
            except OSError as fault:
                raise ServiceError(f"{self} cannot be locked: {fault.strerror}") from fault
            yield
        finally:
            os.close(file)

    @contextmanager
    def _leased(self) -> Iterator[None]:
        """By an object that says until when, renewed while the block lasts. Once it is lost nothing is changed here."""
        self.probe()
        owner = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        tag = self._lease(owner)
        over = threading.Event()
        self._lost = None

        def renew() -> None:
            nonlocal tag
            until = time.monotonic() + _LEASE_S
            while not over.wait(_RENEW_S):
                try:
                    tag = self._write_lease(owner, {"e_tag": tag})
                    until = time.monotonic() + _LEASE_S
                except (faults.BaseError, OSError) as fault:
                    # Whoever wrote it has it; anything else may pass before it runs out.
                    if isinstance(fault, faults.PreconditionError) or time.monotonic() + _RENEW_S > until:
                        self._lost = _first_line(fault)
                        return

        keeper = threading.Thread(target=renew, name="lease", daemon=True)
        keeper.start()
        try:
            yield
            self._refuse_lost()
        finally:
            over.set()
            keeper.join()
            with contextlib.suppress(ServiceError, NotFound):
                self.delete([_LEASE])  # nothing where it is another's

    def _refuse_lost(self) -> None:
        if self._lost is not None:
            raise ServiceError(f"The lease on {self} was lost in the middle of the run: {self._lost}")

    def _lease(self, owner: str) -> str:
        with self._faults(), contextlib.suppress(faults.AlreadyExistsError):
            return self._write_lease(owner, "create")
        with self._faults():
            found = obstore.get(self._store, _LEASE)
            tag, told = found.meta["e_tag"], json.loads(bytes(found.bytes()))
        if told["until"] > time.time():
            raise Conflict(f"Another run is changing the backup in {self}: {told['owner']}.")
        try:
            with self._faults():
                return self._write_lease(owner, {"e_tag": tag})
        except faults.PreconditionError:
            raise Conflict(f"Another run has just begun to change the backup in {self}.") from None

    def _write_lease(self, owner: str, mode: Any) -> str:
        told = json.dumps({"owner": owner, "until": time.time() + _LEASE_S}).encode()
        return str(obstore.put(self._store, _LEASE, told, mode=mode, use_multipart=False)["e_tag"])

    def probe(self) -> None:
        """A store that ignores conditions would let two writers in: then it is refused."""
        name = f"{_PROBE}-{secrets.token_hex(8)}"
        try:
            with self._faults():
                obstore.put(self._store, name, b"1", mode="create", use_multipart=False)
        except NotFound as fault:
            raise ServiceError(f"{self} cannot be written to: {fault.message}") from fault
        with self._faults():
            try:
                obstore.put(self._store, name, b"2", mode="create", use_multipart=False)
            except faults.AlreadyExistsError:
                return
            finally:
                obstore.delete(self._store, name)
        raise ServiceError(f"{self} ignores conditional puts (If-None-Match), so nothing is safe there.")

    @contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except (faults.NotFoundError, FileNotFoundError) as fault:
            raise NotFound(f"{self} lacks what is asked for: {_first_line(fault)}") from fault
        except (faults.AlreadyExistsError, faults.PreconditionError):
            raise
        except (faults.BaseError, OSError) as fault:
            raise ServiceError(f"{self}: {_first_line(fault)}") from fault

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """As `_faults`, and only while this is the one that may."""
        self._refuse_lost()
        with self._faults():
            yield


def _folder(path: Path) -> Any:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)  # what is copied may be nobody else's to read
        return LocalStore(prefix=path)
    except (OSError, faults.BaseError) as fault:
        raise ServiceError(f"The folder {path} cannot be used: {_first_line(fault)}") from fault


def _bucket(spec: Bucket) -> Any:
    options: dict[str, Any] = {"region": spec.region, "virtual_hosted_style_request": spec.virtual_host}
    if spec.endpoint is not None:
        options["endpoint"] = spec.endpoint
    if spec.access_key is not None and spec.secret_key is not None:
        options["access_key_id"] = spec.access_key
        options["secret_access_key"] = spec.secret_key.get_secret_value()
    return S3Store(spec.name, prefix=spec.prefix or None, client_options={"allow_http": True}, **options)


def is_half(name: str) -> bool:
    """Whether what is called so was left by a process that was killed before it was whole."""
    return name.rpartition("/")[2].startswith(".")


@contextmanager
def _half(folder: Path, name: str) -> Iterator[tuple[BinaryIO, Path]]:
    """A file in `folder`, to be renamed before the end of the block, where it is gone otherwise."""
    folder.mkdir(parents=True, exist_ok=True)
    half = folder / f".{name}.{os.getpid()}"
    try:
        with half.open("wb", buffering=0) as out:
            yield out, half
    finally:
        half.unlink(missing_ok=True)


def _write(path: Path, data: bytes) -> None:
    with _half(path.parent, path.name) as (out, half):
        _all(out, data)
        half.replace(path)


def _gather(folder: Path, pieces: "Iterable[memoryview[int]]", name: Callable[[], str]) -> None:
    with _half(folder, secrets.token_hex(8)) as (out, half):
        for piece in pieces:
            done = _to_disk(out.fileno(), piece)
            _all(out, piece[done:])
        half.replace(folder / name())


def _to_disk(file: int, data: "memoryview[int]") -> int:
    """Write the whole pages of `data` past the system's memory, which would cost as much as their sums do; nobody reads
    them again soon. How many bytes that were: none where the file system, or the place of `data`, does not allow it."""
    done, whole = 0, len(data) - len(data) % mmap.PAGESIZE
    flags = fcntl.fcntl(file, fcntl.F_GETFL)
    try:
        fcntl.fcntl(file, fcntl.F_SETFL, flags | os.O_DIRECT)
        while done < whole:
            done += os.write(file, data[done:whole])
    except OSError as fault:
        if fault.errno != errno.EINVAL:
            raise
    finally:
        fcntl.fcntl(file, fcntl.F_SETFL, flags)
    return done


def _all(out: BinaryIO, data: "bytes | memoryview[int]") -> None:
    """More than one call where the system takes less than it was given."""
    rest = memoryview(data)
    while rest:
        rest = rest[out.write(rest) :]


def _copy(path: Path, parts: Iterable[bytes]) -> None:
    """As `_write`, and it outlasts a loss of power."""
    with _half(path.parent, path.name) as (out, half):
        for part in parts:
            _all(out, part)
        os.fsync(out.fileno())
        half.replace(path)
    _sync(path.parent)


def _chunks(file: BinaryIO, size: int, told: Told) -> Iterator[bytes]:
    while data := file.read(size):
        told(len(data))
        yield data


def _sync(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _first_line(fault: BaseException) -> str:
    """Without what the library adds for its developers."""
    return str(fault).split("\n\nDebug source:")[0].splitlines()[0]
