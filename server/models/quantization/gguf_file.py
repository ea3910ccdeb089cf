"""Writes a quantised GGUF file tensor by tensor; a run that was cut goes on where it stopped.

The file grows under another name beside its place, with a journal of finished tensors and their SHA-256. What the
journal names is read again and checked before a later run builds on it. Only a whole file gets its name.
"""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter

from server.models.header import BLOCKS, Header
from server.models.quantization.calibration import STAGES, Network, Text, tensor
from server.models.quantization.fault import QuantizeError, Told
from server.models.quantization.fitting import Seen, rounded
from server.models.quantization.ggml import Quantiser
from server.models.quantization.kinds import FLOATS, Kind, stored
from server.models.quantization.originals import Floats, FolderOriginal, GgufOriginal, Original, Part
from server.models.quantization.work import alone, digest, sha256, sync

_FORMAT = 3
"""To be raised with every change of what is written, so that a cut run of other code is not gone on with."""


@dataclass(frozen=True)
class Written:
    """`reused` counts the tensors that an earlier run had finished."""

    file: Path
    sha256: str
    reused: int
    by: str
    kinds: dict[str, int]
    """How many weights are of each type."""
    unfit: dict[int, int]
    """How many weights are in rows that are no whole number of the blocks asked for, by the length of the rows."""


def write(original: Original, kind: Kind, file: Path, told: Told, text: Text | None = None) -> Written:
    """The original as `kind` at `file`, in a folder that is there. Raises QuantizeError or WeightsError.

    With `text` the layers' matrices are fitted to it, one layer after another, each to what it gets from the quantised
    ones before it; else each weight is rounded for itself. Holds a few dozen MiB of weights at a time, for a llama one
    matrix of queries, and with `text` one layer of floats and its states of the whole text.
    """
    if isinstance(original, GgufOriginal) and original.bits < kind.bits + 0.5:
        raise QuantizeError(
            f"{original.path}: its weights have {original.bits:.2f} bits already, and {kind.name} has {kind.bits:g}"
        )
    work = file.with_name(f".{file.name}.quantizing")
    with alone(work), contextlib.closing(Quantiser()) as quantiser:
        run = _Run(original, kind, work, quantiser, text)
        for each in set(run.types.values()) - set(FLOATS) - {part.kept for part in original.parts}:
            quantiser.check(each)
        reused = run.begin(told)
        run.finish(told)
        written = Written(file, sha256(run.part_file), reused, quantiser.by, run.counts(), run.unfit())
        run.part_file.replace(file)
        sync(file.parent)
    shutil.rmtree(work)
    return written


class _Run:
    def __init__(self, original: Original, kind: Kind, work: Path, quantiser: Quantiser, text: Text | None) -> None:
        self._original = original
        self._text = text
        self._kind = kind
        self._quantiser = quantiser
        self.part_file = work / "weights.part"
        self._plan_file = work / "plan.json"
        self._journal = work / "journal.jsonl"
        self.types = {part.name: _type(part, kind) for part in original.parts}
        plan = {
            "format": _FORMAT,
            "files": original.identity(),
            "types": {name: each.name for name, each in self.types.items()},
            "by": quantiser.by,
            "fitted": None if text is None else [list(window) for window in text.windows],
        }
        self._digest = digest(plan)
        self._done: set[str] = set()

    def counts(self) -> dict[str, int]:
        counted: dict[str, int] = {}
        for part in self._original.parts:
            name = self.types[part.name].name.lower()
            counted[name] = counted.get(name, 0) + part.count
        return counted

    def unfit(self) -> dict[int, int]:
        counted: dict[int, int] = {}
        for part in self._original.parts:
            if part.kept is None and part.size[-1] % BLOCKS[self._kind.ggml][0]:
                counted[part.size[-1]] = counted.get(part.size[-1], 0) + part.count
        return counted

    def begin(self, told: Told) -> int:
        """Lay the file out, or check what an earlier run left of the same plan; how many tensors that is."""
        if self._planned() == self._digest:
            self._done = self._sound(told)
            return len(self._done)
        self._journal.unlink(missing_ok=True)
        self._plan_file.unlink(missing_ok=True)
        self._lay_out()
        fresh = self._plan_file.with_suffix(".new")
        fresh.write_text(json.dumps({"plan": self._digest}), encoding="utf-8")
        sync(fresh)
        fresh.replace(self._plan_file)
        return 0

    def finish(self, told: Told) -> None:
        """Quantise every tensor that is not there yet."""
        self._entries = Header.read(self.part_file).tensors
        self._whole = sum(part.count for part in self._original.parts)
        self._come = 0
        with self.part_file.open("r+b") as file, self._journal.open("a", encoding="utf-8") as journal:
            self._file, self._notes = file.fileno(), journal
            fitted = set() if self._text is None else self._fit(self._text, told)
            for part in self._original.parts:
                if part.name not in fitted:
                    self._next(part, told)
                    if part.name not in self._done:
                        self._put(part, self._octets(part))
            os.fsync(journal.fileno())
        told("quantised", self._whole, self._whole)

    def _next(self, part: Part, told: Told) -> None:
        told(f"quantising {part.name}", self._come, self._whole)
        self._come += part.count

    def _put(self, part: Part, pieces: Iterable[bytes]) -> None:
        """The bytes of a tensor at its place, and then its line in the journal."""
        entry = self._entries[part.name]
        taken, at = hashlib.sha256(), entry.start
        for octets in pieces:
            os.pwrite(self._file, octets, at)
            taken.update(octets)
            at += len(octets)
        assert at == entry.start + entry.bytes, f"{part.name} has {at - entry.start} bytes for {entry.bytes}"
        os.fsync(self._file)
        self._notes.write(json.dumps({"tensor": part.name, "sha256": taken.hexdigest()}) + "\n")
        self._notes.flush()

    # ---- fitted to a text ----------------------------------------------------------------------------------------

    def _fit(self, text: Text, told: Told) -> set[str]:
        """Round the layers' matrices one stage after another; returns their names."""
        parts = {part.name: part for part in self._original.parts}
        names = {
            tensor(name, number) for number in range(text.shape.layers) for stage in STAGES for name in stage
        } & parts.keys()
        if names <= self._done:
            self._come += sum(parts[name].count for name in names)
            return names

        def read(name: str) -> Floats | None:
            return self._original.whole(parts[name]) if name in parts else None

        network = Network(text.shape, read, neighbours=self._original.architecture == "llama")
        states = self._embedded(parts["token_embd.weight"], text)
        for number in range(text.shape.layers):
            layer = network.layer(number)
            for stage, inputs in network.stages(layer, states):
                seen: Seen | None = None
                for name in stage:
                    part = parts[tensor(name, number)]
                    self._next(part, told)
                    if part.name not in self._done:
                        seen = seen or Seen(inputs)
                        blocks = rounded(layer.weights[name], self.types[part.name], seen, self._quantiser)
                        self._put(part, [blocks.tobytes()])
                    layer.weights[name] = self._written(part)
        return names

    def _embedded(self, part: Part, text: Text) -> list[Floats]:
        """What the first layer reads of each window. The embedding is as it was: it is no matrix of a layer."""
        wanted = np.unique(np.concatenate([np.array(window) for window in text.windows]))
        rows = np.empty((len(wanted), part.size[-1]), np.float32)
        start = 0
        for piece in self._original.pieces(part):
            here = (wanted >= start) & (wanted < start + len(piece))
            rows[here] = piece[wanted[here] - start]
            start += len(piece)
        return [rows[np.searchsorted(wanted, window)] for window in text.windows]

    def _written(self, part: Part) -> Floats:
        """A tensor as the file holds it."""
        entry = self._entries[part.name]
        raw = np.frombuffer(os.pread(self._file, entry.bytes, entry.start), np.uint8)
        values: Floats = gguf.dequantize(raw.reshape(part.size[0], -1), self.types[part.name])
        return values.reshape(part.size)

    def _octets(self, part: Part) -> Iterator[bytes]:
        if part.kept is not None and isinstance(self._original, GgufOriginal):
            yield self._original.raw(part)
            return
        for piece in self._original.pieces(part):
            yield self._quantiser.rows(piece, self.types[part.name]).tobytes()

    # ---- what an earlier run left --------------------------------------------------------------------------------

    def _planned(self) -> str | None:
        try:
            found = json.loads(self._plan_file.read_text(encoding="utf-8"))["plan"]
        except (OSError, ValueError, LookupError, TypeError):
            return None
        return found if isinstance(found, str) and self.part_file.is_file() else None

    def _sound(self, told: Told) -> set[str]:
        """The tensors whose bytes in the file are those the journal speaks of."""
        entries = Header.read(self.part_file).tensors
        noted: dict[str, str] = {}
        lines = self._journal.read_text(encoding="utf-8").splitlines() if self._journal.exists() else []
        for line in lines:
            with contextlib.suppress(ValueError, LookupError, TypeError):  # the last one may be cut
                each = json.loads(line)
                noted[each["tensor"]] = each["sha256"]
        sound = set()
        for at, (name, taken) in enumerate(noted.items()):
            told("checking what an earlier run finished", at, len(noted))
            if name in entries and sha256(self.part_file, entries[name].start, entries[name].bytes) == taken:
                sound.add(name)
        # Written anew, so that a cut line does not spoil the next one.
        self._journal.write_text(
            "".join(json.dumps({"tensor": name, "sha256": noted[name]}) + "\n" for name in noted if name in sound),
            encoding="utf-8",
        )
        return sound

    def _lay_out(self) -> None:
        """Metadata and the list of tensors, and room for them."""
        writer = GGUFWriter(self.part_file, self._original.architecture)
        self._original.add_metadata(writer)
        writer.add_file_type(self._kind.file_type)
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        room = 0
        for part in self._original.parts:
            kind = self.types[part.name]
            octets = _bytes(part, kind)
            writer.add_tensor_info(part.name, part.size, np.dtype(np.float32), octets, kind)
            room += GGUFWriter.ggml_pad(octets, writer.data_alignment)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        alignment = writer.data_alignment
        writer.close()
        head = GGUFWriter.ggml_pad(self.part_file.stat().st_size, alignment)
        if (free := shutil.disk_usage(self.part_file.parent).free) < room:
            raise QuantizeError(f"{self.part_file.parent.parent}: {room} bytes are needed and {free} are free")
        os.truncate(self.part_file, head + room)
        if isinstance(self._original, FolderOriginal):
            self._original.check_tokenizer(self.part_file)
        sync(self.part_file)


def _type(part: Part, kind: Kind) -> GGMLQuantizationType:
    return stored(kind, part.size[-1], head=part.head) if part.kept is None else part.kept


def _bytes(part: Part, kind: GGMLQuantizationType) -> int:
    each, octets = BLOCKS[kind]
    return part.count // each * octets
