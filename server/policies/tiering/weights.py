"""Moves the files of weights to cold storage, and tidies up after those that came back; whatever ends a run, every file
is whole in one of both places.

The record says `copying` before the first byte is written. Copies are read back and their sums compared; then the
record says `cold`; only then do the local files go. Blocks, and computes, so it runs in a process of its own.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from msgspec.structs import replace

from config.bucket import Bucket
from config.model import ModelSpec
from config.source import cold_record
from server import uploads
from server.errors import HearthError, ServiceError
from server.models import cold_weights
from server.models.cold_weights import Address, InUse, Part, Record
from server.models.fit import takes
from server.models.header import WeightsError
from server.place import Place, is_half
from server.policies.report import Report, Tell

_FOLDER = "weights"
_MB = 10**6


@dataclass(frozen=True)
class Weights:
    """A .gguf file or a folder, and the models that are made of it. `cards` are kept with the record, as is what each
    of `specs` takes in memory, which nobody can tell without them."""

    path: Path
    names: tuple[str, ...]
    cards: Mapping[str, bytes] = field(default_factory=dict)
    specs: tuple[ModelSpec, ...] = ()

    def __str__(self) -> str:
        return ", ".join(self.names)


@dataclass(frozen=True)
class Work:
    """What one run has to do: `going` of `known` were not asked for long."""

    place: Path | Bucket
    known: tuple[Weights, ...]
    going: tuple[Weights, ...]
    data: Path = Path()
    """The data directory."""


def move(work: Work, tell: Tell) -> Report:
    """Raises Conflict while another run does, and what the place raises; the next run goes on with what is left."""
    place = Place(work.place)
    with place.held():
        return _Mover(place, work.data, tell).run(work)


class _Stays(Exception):
    """Why weights are not moved."""


class _Mover:
    def __init__(self, place: Place, data: Path, tell: Tell) -> None:
        self._place = place
        self._data = data
        self._tell = tell
        self._details: list[str] = []
        self._out = self._back = self._out_bytes = self._back_bytes = 0

    def run(self, work: Work) -> Report:
        going = {each.path for each in work.going}
        self._place.delete([name for name in self._place.names(_FOLDER) if is_half(name)])
        if isinstance(work.place, Bucket):
            self._end_uploads(work.place)
        for each in work.known:
            self._tidily(each, each.path in going)
        for each in work.going:
            if not cold_weights.is_away(each.path):
                self._each(each, self._go)
        away = sum(cold_weights.is_away(each.path) for each in work.known)
        summary = (
            f"weights of {self._out} models ({self._out_bytes / _MB:.1f} MB) went to {self._place}, those of "
            f"{self._back} came back, those of {away} are in cold storage"
        )
        figures = {
            "weights_out": float(self._out),
            "weight_bytes_out": float(self._out_bytes),
            "weights_back": float(self._back),
            "weight_bytes_back": float(self._back_bytes),
            "weights_cold": float(away),
        }
        return Report(summary, figures, tuple(self._details))

    def _end_uploads(self, bucket: Bucket) -> None:
        """Those of a run that was killed: whoever holds the place is the only one who uploads there."""
        try:
            if count := uploads.abort(bucket, _FOLDER):
                self._details.append(f"{count} uploads that a run left unfinished were removed")
        except ServiceError as fault:  # not every store can say it
            self._details.append(fault.message)

    def _each(self, weights: Weights, work: Callable[[Weights], None]) -> None:
        """What is wrong with the files of one model keeps no other from moving."""
        try:
            work(weights)
        except InUse:
            self._details.append(f"{weights}: stays, for its weights are in use")
        except (_Stays, WeightsError) as reason:
            self._details.append(f"{weights}: stays: {reason}")
        except HearthError:
            raise
        except OSError as fault:
            self._details.append(f"{weights}: stays: {fault.filename or weights.path}: {fault.strerror or fault}")

    # ---- after others ---------------------------------------------------------------------------------------------

    def _tidily(self, weights: Weights, goes: bool) -> None:
        if cold_record(weights.path).exists():
            self._each(weights, lambda each: self._tidy(each, goes))

    def _tidy(self, weights: Weights, goes: bool) -> None:
        """Let go of the copies of what is back, and finish what was cut off."""
        with cold_weights.alone(cold_record(weights.path)):
            record = cold_weights.record_of(weights.path)
            if record is None:
                return
            away = cold_weights.missing(weights.path, record)
            here = [part for part in record.parts if part not in away]
            if record.stage == "copying":
                if away:
                    raise _Stays(f"{away[0].name} is gone, and its copy was never finished")
                if not goes or not self._is_here(record):
                    self._forget(weights, record)
            elif not away:
                if odd := [part.name for part in here if not _same(weights.path, part)]:
                    raise _Stays(f"{odd[0]} is another file than the one at {record.at}, which stays there too")
                self._forget(weights, record)
                self._back += 1
                self._back_bytes += record.bytes
            elif here:
                # The copies were found right before the record said so.
                with cold_weights.alone(_held_by(weights.path, here)):
                    _remove(weights.path, [part for part in here if _same(weights.path, part)])

    def _forget(self, weights: Weights, record: Record) -> None:
        copies = [part.stored for part in record.parts]
        if self._is_here(record):
            self._place.delete(copies)
        else:
            self._delete_elsewhere(weights, record, copies)
        cold_record(weights.path).unlink()
        cold_weights.sync(cold_record(weights.path).parent)

    def _is_here(self, record: Record) -> bool:
        return record.at == Address.of(self._place.where)

    def _delete_elsewhere(self, weights: Weights, record: Record, copies: list[str]) -> None:
        """Of a place that the recipe named before; what cannot be deleted there is told, and keeps nothing waiting."""
        where = record.at.place
        try:
            if isinstance(where, Path) and not where.is_dir():
                raise ServiceError(f"there is no folder {where}")
            Place(where).delete(copies)
        except HearthError as fault:
            self._details.append(f"{weights}: its copy at {record.at} stays there: {fault.message}")

    # ---- there ----------------------------------------------------------------------------------------------------

    def _go(self, weights: Weights) -> None:
        before = cold_weights.record_of(weights.path)
        if before is not None and before.stage == "cold":
            return  # what is wrong with it was said when it was looked at
        files = cold_weights.files_of(weights.path)
        _refuse_odd(weights.path, files)
        if not os.access(files[0].parent, os.W_OK):
            raise _Stays(f"{files[0].parent} cannot be written to")
        with cold_weights.alone(weights.path):
            pass  # else it is loaded, and copying it would be for nothing
        parts = [self._part(weights, file) for file in files]
        at = Address.of(self._place.where)
        took = {cold_weights.mark(spec): takes(spec, self._data) for spec in weights.specs}
        memory = {mark: each for mark, each in took.items() if each is not None}
        record = Record("copying", datetime.now(UTC), at, tuple(parts), dict(weights.cards), memory=memory)
        cold_weights.write(weights.path, record)
        if before is not None:  # of a run that was cut off, when the files were others
            self._place.delete(sorted({part.stored for part in before.parts} - {part.stored for part in parts}))
        for part, file in zip(parts, files, strict=True):
            self._copy(weights, part, file)
        try:
            with cold_weights.alone(weights.path):
                if odd := [part.name for part in parts if not _untouched(weights.path, part)]:
                    raise _Stays(f"{odd[0]} changed while it was copied")
                cold_weights.write(weights.path, replace(record, stage="cold"))
                _remove(weights.path, parts)
        except (_Stays, InUse):
            self._forget(weights, record)
            raise
        self._out += 1
        self._out_bytes += record.bytes

    def _part(self, weights: Weights, file: Path) -> Part:
        status = file.stat()
        self._tell(f"{weights}: {file.name} is read")
        total = cold_weights.sum_of(cold_weights.read(file))
        whose = hashlib.sha256(str(file).encode()).hexdigest()[:12]
        stored = f"{_FOLDER}/{total}-{whose}"
        return Part(file.name, status.st_size, status.st_mode & 0o7777, status.st_mtime_ns, total, stored)

    def _copy(self, weights: Weights, part: Part, file: Path) -> None:
        """Have the copy at the place, read back and found right."""
        done = 0

        def told(count: int) -> None:
            nonlocal done
            done += count
            self._tell(f"{weights}: {100 * done // max(part.bytes, 1)} % of {file.name} went to {self._place}")

        if self._place.names(_FOLDER).get(part.stored) != part.bytes:
            with file.open("rb") as opened:
                self._place.send(part.stored, opened, part.bytes, told)
        self._tell(f"{weights}: {file.name} is read back")
        found = cold_weights.sum_of(self._place.stream(part.stored))
        if found != part.sha256:
            with suppress(ServiceError):
                self._place.delete([part.stored])
            raise ServiceError(
                f"{self._place} gives back {file.name} with the sum {found} instead of {part.sha256}, so nothing was "
                "removed here."
            )


def _refuse_odd(weights: Path, files: Iterable[Path]) -> None:
    """Raises _Stays for what would free nothing, or is not all there."""
    if weights.is_symlink():
        raise _Stays(f"{weights} is a link; name what it leads to")
    found = list(files)
    if not found:
        raise _Stays(f"{weights} has no weights")
    for file in found:
        if file.is_symlink():
            raise _Stays(f"{file} is a link")
        if file.stat().st_nlink > 1:
            raise _Stays(f"{file} has other names on this disk, so that removing it would free nothing")


def _held_by(weights: Path, here: list[Part]) -> Path:
    """What a process would hold that has the weights open, of which a part is left."""
    return weights if weights.exists() else cold_record(weights).parent / here[0].name


def _untouched(weights: Path, part: Part) -> bool:
    try:
        status = (cold_record(weights).parent / part.name).stat()
    except FileNotFoundError:
        return False
    return (status.st_size, status.st_mtime_ns) == (part.bytes, part.modified)


def _same(weights: Path, part: Part) -> bool:
    """Whether a local file is what was moved, by its time or else by its sum."""
    if _untouched(weights, part):
        return True
    return cold_weights.sum_of(cold_weights.read(cold_record(weights).parent / part.name)) == part.sha256


def _remove(weights: Path, parts: Iterable[Part]) -> None:
    folder = cold_record(weights).parent
    for part in parts:
        (folder / part.name).unlink(missing_ok=True)
    cold_weights.sync(folder)
