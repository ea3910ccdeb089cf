"""Weights that lie in cold storage: the record that stands in their place, and bringing them back, verified.

`policies.tiering.models` moves them there. What lies at its own place always counts; the record is asked for what does
not. A file gets its name only when it is whole and has its sum, so that a process may be killed at any moment.
"""

import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal

import msgspec
from rich.filesize import decimal

from config.bucket import Bucket
from config.model import Draft, EchoModel, LocalModel, ModelSpec, RemoteModel, Source
from config.source import cold_record
from server.errors import HearthError
from server.models import kept
from server.models.engine import Progress
from server.models.header import WeightsError

_EVERY_S = 2.0
"""Between two lines of progress."""
_LOOK_S = 0.5
_READ = 2**20
_CREDENTIALS = "AWS_"
_held: list[int] = []
"""Files that stay open, and so locked, for as long as this process lives."""


class ColdFault(OSError):
    """Weights that could not be brought back now: one sentence that names them and says why."""


class Address(msgspec.Struct, frozen=True, omit_defaults=True):
    """A folder, or a bucket with what is no secret of it."""

    folder: str | None = None
    url: str | None = None
    endpoint: str | None = None
    region: str = "us-east-1"
    virtual_host: bool = False

    @classmethod
    def of(cls, place: Path | Bucket) -> "Address":
        if isinstance(place, Path):
            return cls(folder=str(place))
        return cls(None, place.url, place.endpoint, place.region, place.virtual_host)

    @property
    def place(self) -> Path | Bucket:
        """Where the record alone leads; a key for a bucket is then the environment's."""
        if self.url is None:
            return Path(self.folder or "")
        told = {"url": self.url, "endpoint": self.endpoint, "region": self.region, "virtual_host": self.virtual_host}
        return Bucket.model_validate(told)

    def __str__(self) -> str:
        return self.url or self.folder or ""


class Part(msgspec.Struct, frozen=True):
    """One file: its name beside the record, what it was, and what its copy is called in cold storage."""

    name: str
    bytes: int
    mode: int
    modified: int
    """Its st_mtime_ns."""
    sha256: str
    stored: str


class Takes(msgspec.Struct, frozen=True):
    """Bytes of memory that a model takes once it is loaded, as `server.models.fit.Memory` has them."""

    weights: int
    cache: int
    rest: int
    tokens: int
    gpu: bool


class Record(msgspec.Struct, frozen=True):
    """Where weights are. `copying`: the local files count, and the copies may be half; `cold`: the copies were read
    back and found right. By `mark`, `cards` is what engines last said of models with these weights, and `memory` what
    those take."""

    stage: Literal["copying", "cold"]
    since: datetime
    at: Address
    parts: tuple[Part, ...]
    cards: dict[str, bytes] = {}
    format: Literal[1] = 1
    memory: dict[str, Takes] = {}

    @property
    def bytes(self) -> int:
        return sum(part.bytes for part in self.parts)


_records = msgspec.json.Decoder(Record)


@dataclass(frozen=True)
class Cold:
    """The cold storage that a recipe declares for weights. `environment` are the variables with a bucket's key, which
    a worker does not inherit."""

    place: Path | Bucket
    environment: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    @classmethod
    def of(cls, place: Path | Bucket | None, environment: Mapping[str, str]) -> "Cold | None":
        if place is None:
            return None
        return cls(place, tuple(each for each in environment.items() if each[0].startswith(_CREDENTIALS)))


# ---- what there is --------------------------------------------------------------------------------------------------


def local_sources(spec: ModelSpec) -> list[Source]:
    """The sources of a model that are files or folders of the user's own, which alone may move."""
    if isinstance(spec, EchoModel | RemoteModel):
        return []
    beside = (spec.draft, spec.projector) if isinstance(spec, LocalModel) else ()
    return [each for each in (spec.source, *beside) if each is not None and is_local(each)]


def is_local(source: Source) -> bool:
    return not (source.startswith(("pip:", "hf:", "made:")) or (isinstance(source, Draft) and source.is_ngram))


def files_of(weights: Path) -> list[Path]:
    """The files that move: those of a .gguf file, or a folder's safetensors; a folder's small files stay."""
    if cold_record(weights).parent == weights:
        return sorted(weights.glob("*.safetensors"))
    return [weights.with_name(name) for name in kept.shards(weights.name)]


def record_of(weights: Path) -> Record | None:
    """None where the weights never moved. Raises WeightsError where the record cannot be read."""
    place = cold_record(weights)
    try:
        found = _records.decode(place.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, msgspec.MsgspecError) as fault:
        raise WeightsError(f"{place}, which says where the weights are, cannot be read: {fault}") from fault
    if odd := next((part.name for part in found.parts if "/" in part.name or part.name in ("", ".", "..")), None):
        raise WeightsError(f"{place} was not written by Hearth: {odd!r} is no name of a file")
    return found


def missing(weights: Path, record: Record) -> list[Part]:
    """What is not at its own place."""
    folder = cold_record(weights).parent
    return [part for part in record.parts if not (folder / part.name).is_file()]


def is_away(weights: Path) -> bool:
    """Whether a file of the weights is in cold storage and not here."""
    try:
        record = record_of(weights)
    except WeightsError:
        return not all(file.is_file() for file in files_of(weights)) or not files_of(weights)
    return record is not None and bool(missing(weights, record))


def told_of(weights: Path) -> str:
    """How to say where weights are that are away."""
    try:
        record = record_of(weights)
    except WeightsError as fault:
        return str(fault)
    return "" if record is None else f"in cold storage: {decimal(record.bytes)} at {record.at}"


def memory_of(spec: ModelSpec, weights: Path) -> Takes | None:
    """What a model took before these weights of it went; None where that is not on record."""
    with suppress(WeightsError):
        record = record_of(weights)
        return None if record is None else record.memory.get(mark(spec))
    return None


def mark(spec: ModelSpec) -> str:
    """What a model's card is kept under: another recipe of it has another one."""
    return hashlib.sha256(spec.model_dump_json().encode()).hexdigest()[:16]


def card_of(spec: ModelSpec) -> bytes | None:
    """What the engine last said of a model whose weights are away; None where that is not on record."""
    for source in local_sources(spec)[:1]:
        with suppress(WeightsError):
            record = record_of(source.path)
            return None if record is None else record.cards.get(mark(spec))
    return None


# ---- bringing back --------------------------------------------------------------------------------------------------


def opened(weights: Path, cold: Cold | None, progress: Progress) -> None:
    """Have the weights at their own place, and keep them there for as long as this process lives.

    Raises ColdFault where they cannot be had now, WeightsError where the copy is not what was moved. Blocks, may take
    long; `progress` is told how far it is.
    """
    while True:
        bring(weights, cold, progress)
        if _hold(weights):
            return


def bring(weights: Path, cold: Cold | None, progress: Progress) -> int:
    """Bring back what is away; how many bytes that were. Raises as `opened`."""
    count = 0
    while is_away(weights):
        with _alone(cold_record(weights), progress):
            record = record_of(weights)
            if record is None or not (wanted := missing(weights, record)):
                continue
            if record.stage != "cold":
                raise WeightsError(f"{weights} is gone, and its copy at {record.at} was never finished")
            count += sum(part.bytes for part in wanted)
            _fetch(weights, record.at, wanted, cold, progress)
    return count


def _fetch(weights: Path, at: Address, wanted: list[Part], cold: Cold | None, progress: Progress) -> None:
    from server.place import Place

    folder = cold_record(weights).parent
    needed, free = sum(part.bytes for part in wanted), shutil.disk_usage(folder).free
    if needed > free:
        raise ColdFault(f"{weights} is in cold storage, takes {decimal(needed)}, and {decimal(free)} are free here")
    declared = cold is not None and Address.of(cold.place) == at
    if cold is not None:
        os.environ.update(cold.environment)
    told = _Lines(f"bringing back {weights.name} from {at}", needed, progress)
    where = cold.place if cold is not None and declared else at.place
    try:
        if isinstance(where, Path) and not where.is_dir():
            raise ColdFault(f"{weights} is in cold storage and could not be brought back: there is no folder {where}")
        place = Place(where)
        for part in wanted:
            _write(folder / part.name, part, place.stream(part.stored), str(at), told)
    except HearthError as fault:
        raise ColdFault(f"{weights} is in cold storage and could not be brought back: {fault.message}") from fault
    except ColdFault:
        raise
    except OSError as fault:
        raise ColdFault(
            f"{weights} is in cold storage and could not be written here: {fault.strerror or fault}"
        ) from fault


def _write(target: Path, part: Part, content: Iterable[bytes], at: str, told: Callable[[int], None]) -> None:
    """Make `target` that file, whole and with its sum, or not at all."""
    half = target.with_name(f".{target.name}.arriving")
    total, size = hashlib.sha256(), 0
    try:
        with half.open("wb") as out:
            for chunk in content:
                out.write(chunk)
                total.update(chunk)
                size += len(chunk)
                told(len(chunk))
            out.flush()
            os.fsync(out.fileno())
        if (size, total.hexdigest()) != (part.bytes, part.sha256):
            raise WeightsError(
                f"the copy of {target} at {at} ({part.stored}) is damaged: {size} bytes with the sum "
                f"{total.hexdigest()} instead of {part.bytes} with {part.sha256}; nothing was changed"
            )
        half.chmod(part.mode & 0o777)
        os.utime(half, ns=(part.modified, part.modified))
        half.replace(target)
        sync(target.parent)
    finally:
        half.unlink(missing_ok=True)


class _Lines:
    """Tells `progress` a line now and then."""

    def __init__(self, what: str, total: int, progress: Progress) -> None:
        self._what, self._total, self._progress = what, total, progress
        self._count, self._told = 0, float("-inf")

    def __call__(self, count: int) -> None:
        self._count += count
        if time.monotonic() - self._told >= _EVERY_S:
            self._told = time.monotonic()
            self._progress(f"{self._what}: {100 * self._count // max(self._total, 1)} % of {decimal(self._total)}")


# ---- locks ----------------------------------------------------------------------------------------------------------


class InUse(Exception):
    """A process has the weights open, or is bringing them back."""


def _hold(weights: Path) -> bool:
    """Keep the weights from moving while this process lives; False where they moved just now."""
    try:
        file = os.open(weights, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return not is_away(weights)  # else there are none, of which the engine tells
    with suppress(OSError):  # a file system without locks: then nothing moves on it either
        fcntl.flock(file, fcntl.LOCK_SH)
    if is_away(weights):
        os.close(file)
        return False
    _held.append(file)
    return True


@contextmanager
def alone(file: Path) -> Iterator[None]:
    """While no other process holds `file`, weights or a record. Raises InUse where one does, OSError without locks."""
    lock = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InUse(str(file)) from None
        yield
    finally:
        os.close(lock)


@contextmanager
def _alone(record: Path, progress: Progress) -> Iterator[None]:
    """As `alone`, once whoever else brings the weights back has done so; also where the record went meanwhile."""
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(alone(record))
                break
            except InUse:
                progress("another process is bringing the weights back")
                time.sleep(_LOOK_S)
            except FileNotFoundError:
                break
        yield


def sync(folder: Path) -> None:
    """Have what was renamed or removed in a folder outlast a loss of power."""
    file = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def write(weights: Path, record: Record) -> None:
    """Write the record, whole or not at all, so that it outlasts a loss of power."""
    place = cold_record(weights)
    half = place.with_name(f".{place.name}.new")
    with half.open("wb") as out:
        out.write(msgspec.json.format(msgspec.json.encode(record), indent=1))
        out.flush()
        os.fsync(out.fileno())
    half.replace(place)
    sync(place.parent)


def sum_of(parts: Iterable[bytes]) -> str:
    """SHA-256, in hex."""
    total = hashlib.sha256()
    for part in parts:
        total.update(part)
    return total.hexdigest()


def read(file: Path) -> Iterator[bytes]:
    with file.open("rb") as opened:
        while chunk := opened.read(_READ):
            yield chunk
