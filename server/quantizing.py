"""`hearth quantize`: a model made smaller, in one of four formats, and what that cost, told on its card too."""

import datetime
import math
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import TypeAdapter, ValidationError
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from config import Recipe
from config.model import EchoModel, RemoteModel, Source
from server.models.header import WeightsError, parts
from server.models.hub import HubError, located
from server.models.quantization import card, evaluating
from server.models.quantization.card import Card, Evaluated
from server.models.quantization.fault import QuantizeError, Told
from server.models.quantization.work import digest

if TYPE_CHECKING:
    from server.models.quantization import kinds

HANDBOOK = Path(__file__).parents[1] / "recipes" / "handbook"
FORMATS = ("gguf", "gptq", "exl2", "exl3")
_ENGINES = {"EXL2": "exllamav2", "EXL3": "exllamav3"}
_EVERY = 10
"""Hundredths between two lines of progress where there is no terminal."""


@dataclass(frozen=True)
class Asked:
    """The command line: `bits` a weight, or `kind`, a GGUF type; `data` is what `evaluate` reads."""

    model: str
    to: str
    bits: float
    kind: str | None = None
    out: Path | None = None
    evaluate: bool = False
    data: Path | None = None
    calibration: Path | None = None
    plain: bool = False
    act_order: bool = True
    group: int | None = None
    """Inputs of a matrix of GPTQ that share a scale; None for the largest number that fits."""


def quantize(recipe: Recipe, asked: Asked, out: Console, err: Console) -> int:
    """Quantise, or go on with a run that was cut; returns the exit code, 1 where it cannot be done."""
    try:
        _check(asked)
        path = _located(recipe, asked.model)
        data = _data(asked) if asked.evaluate else None
        with _progress(out) as told:
            made = _made(asked, path, recipe.server.data, told)
            if data is not None and not any(each.data == data.name for each in made.card.evaluated):
                made = _evaluated(made, path, data, recipe.server.data, told)
    except (QuantizeError, WeightsError, HubError, OSError) as error:
        err.print(str(error), markup=False)
        return 1
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in made.card.rows():
        table.add_row(name, value)
    out.print(table)
    out.print(f"{made.weights}: its card is {made.folder / card.CARD}", markup=False)
    return 0


# ---- what is asked --------------------------------------------------------------------------------------------------


def _check(asked: Asked) -> None:
    """Raises QuantizeError for an option that the format has no use for."""
    for option, given, formats in (
        ("--type", asked.kind, ("gguf",)),
        ("--plain", asked.plain, ("gguf",)),
        ("--group", asked.group, ("gptq",)),
        ("--no-act-order", not asked.act_order, ("gptq",)),
        ("--calibration", asked.calibration, ("gguf", "gptq")),
    ):
        if given and asked.to not in formats:
            raise QuantizeError(f"{option} is for {' and '.join(formats)}, and not for {asked.to}")


def _located(recipe: Recipe, model: str) -> Path:
    """The .gguf file or folder of a model of the recipe, or of a source. Raises QuantizeError or HubError."""
    spec = recipe.models.get(model)
    if isinstance(spec, EchoModel | RemoteModel):
        raise QuantizeError(f"models.{model}: a model of engine {spec.engine} has no weights here")
    try:
        source = TypeAdapter(Source).validate_python(model) if spec is None else spec.source
    except ValidationError as error:
        raise QuantizeError(
            f"{model} is no model of {recipe.path}, and no source: {error.errors()[0]['msg']}"
        ) from None
    return located(source, recipe.server.data, download=False, progress=lambda _: None)


def _data(asked: Asked) -> evaluating.Data:
    if asked.data is not None:
        return evaluating.read(asked.data)
    return evaluating.Data("every second page of the handbook", _handbook(odd=True))


def _handbook(*, odd: bool) -> str:
    """Every second page of the handbook: odd ones to measure, even ones to calibrate, so that none is both.

    Raises QuantizeError where the installation has none.
    """
    pages = sorted(HANDBOOK.glob("*.md"))
    if len(pages) < 2:
        raise QuantizeError(f"{HANDBOOK}: the handbook is not there; give a text with --data, or with --calibration")
    return "\n\n".join(page.read_text(encoding="utf-8") for page in pages[int(odd) :: 2])


# ---- the formats ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Made:
    """`weights` is what a recipe names as the source; `folder` holds the card."""

    weights: Path
    folder: Path
    card: Card


def _made(asked: Asked, path: Path, room: Path, told: Told) -> Made:
    makers: dict[str, Callable[[Asked, Path, Told], Made]] = {"gguf": _gguf, "gptq": _gptq}
    if asked.to in makers:
        return makers[asked.to](asked, path, told)
    return _exllama(asked, path, room, told)


def _gguf(asked: Asked, path: Path, told: Told) -> Made:
    from server.models.quantization import calibration, gguf_file, kinds, originals

    kind = kinds.for_bits(asked.bits) if asked.kind is None else kinds.named(asked.kind)
    original = originals.read(path)
    text, rounding = None, "each weight rounded to nearest"
    if not asked.plain:
        said, fitted = _calibration(asked)
        try:
            text, rounding = calibration.read(original, said), f"fitted to {fitted} (arXiv 2210.17323)"
        except WeightsError as error:
            if asked.calibration is not None:
                raise QuantizeError(f"--calibration: {error}; leave it out, or give --plain") from error
            rounding += f", because the model is not computed here ({error})"
    name = f"{_stem(path)}-{kind.name}"
    folder = asked.out or path.parent / name
    file = folder / f"{name}.gguf"
    plan = digest([original.identity(), kind.name, text and [list(each) for each in text.windows]])
    if (found := _there(folder, file, plan)) is not None:
        return found
    folder.mkdir(parents=True, exist_ok=True)
    written = gguf_file.write(original, kind, file, told, text)
    made = replace(
        _card(path, name, "GGUF", file),
        how=f"{kind.name}, {kind.bits:g} bits a weight with its scales by {written.by}, {rounding}",
        weights=original.count,
        half_bytes=original.half_bytes,
        plan=plan,
        sums={file.name: written.sha256},
        types=written.kinds,
        unfit=_unfit(kind, written.unfit, original.count),
    )
    card.write(made, folder)
    return Made(file, folder, made)


def _unfit(kind: "kinds.Kind", found: Mapping[int, int], whole: int) -> str:
    """In words: which weights could not have the type asked for."""
    if not found:
        return ""
    from server.models.header import BLOCKS

    rows = " and ".join(str(columns) for columns in sorted(found))
    share = 100 * sum(found.values()) / whole
    block = BLOCKS[kind.ggml][0]
    return f"{share:.0f} % are in rows of {rows}, no whole number of the blocks of {block} of {kind.name}"


def _gptq(asked: Asked, path: Path, told: Told) -> Made:
    from server.models.quantization import gptq_folder, originals

    if asked.bits != gptq_folder.BITS:
        raise QuantizeError(
            f"--bits {asked.bits:g}: gptq is made with {gptq_folder.BITS} bits, all that engines here read"
        )
    text, fitted = _calibration(asked)
    name = f"{_stem(path)}-gptq"
    folder = asked.out or path.parent / name
    if not path.is_dir():
        raise QuantizeError(f"{path}: gptq is made of a folder with safetensors, not of a GGUF file")
    plan = gptq_folder.identity(path, text, group=asked.group, act_order=asked.act_order)
    if (found := _there(folder, folder, plan)) is not None:
        return found
    original = originals.read(path)
    sums = gptq_folder.write(path, folder, text, told, group=asked.group, act_order=asked.act_order)
    order = ", the columns that matter most first" if asked.act_order else ""
    made = replace(
        _card(path, name, "GPTQ", folder),
        how=f"4 bits in groups, fitted to {fitted}{order} (arXiv 2210.17323)",
        weights=original.count,
        half_bytes=original.half_bytes,
        plan=plan,
        sums=sums,
    )
    card.write(made, folder)
    return Made(folder, folder, made)


def _exllama(asked: Asked, path: Path, room: Path, told: Told) -> Made:
    from server.models.quantization import exllama

    name = f"{_stem(path)}-{asked.to}-{asked.bits:g}"
    folder = asked.out or path.parent / name
    if (missing := exllama.lacking(asked.to, path, asked.bits, room)) is not None:
        raise QuantizeError(missing)
    plan = exllama.identity(asked.to, path, asked.bits)
    if (found := _there(folder, folder, plan)) is not None:
        return found
    sums = exllama.write(asked.to, path, folder, asked.bits, room, told)
    count = _count(path)
    made = replace(
        _card(path, name, asked.to.upper(), folder),
        how=f"{asked.bits:g} bits a weight asked for, by {exllama.engine(asked.to)}'s converter and calibration",
        weights=count,
        half_bytes=2 * count,
        plan=plan,
        sums=sums,
    )
    card.write(made, folder)
    return Made(folder, folder, made)


def _calibration(asked: Asked) -> tuple[str, str]:
    """The text that rounding is fitted to, and what the card calls it. Raises QuantizeError."""
    if asked.calibration is None:
        return _handbook(odd=False), "every second page of the handbook"
    read = evaluating.read(asked.calibration, option="--calibration")
    if not read.text:
        raise QuantizeError(f"--calibration {asked.calibration}: holds questions, and a text is wanted")
    return read.text, asked.calibration.name


def _card(path: Path, name: str, form: str, made: Path) -> Card:
    """What every card says of a model at `path` that was made into `form` at `made`; the rest is put in its place."""
    return Card(
        name=name,
        source=path.name,
        format=form,
        how="",
        weights=0,
        half_bytes=0,
        bytes=_size(made),
        original_bytes=_size(path),
        when=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        plan="",
        sums={},
        versions=card.versions(),
    )


def _count(folder: Path) -> int:
    """How many weights the files of a folder hold, by their headers."""
    from safetensors import safe_open

    count = 0
    for file in parts(folder):
        with safe_open(file, "numpy") as held:
            count += sum(math.prod(held.get_slice(name).get_shape()) for name in held.keys())  # noqa: SIM118 - no mapping
    return count


def _there(folder: Path, weights: Path, plan: str) -> Made | None:
    """What an earlier run finished of the same plan. Raises QuantizeError where something else is in its place."""
    if not weights.exists():
        return None
    found = card.read(folder)
    if found is None or found.plan != plan:
        raise QuantizeError(
            f"{weights} is there already, made of other weights or fitted to another text; remove it, or give another "
            f"--out"
        )
    return Made(weights, folder, found)


def _stem(path: Path) -> str:
    return path.stem if path.suffix == ".gguf" else path.name


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in parts(path))


# ---- what it cost ---------------------------------------------------------------------------------------------------


def _evaluated(made: Made, path: Path, data: evaluating.Data, room: Path, told: Told) -> Made:
    """The same with figures, on the card too."""
    count = made.card.weights
    # What only one engine reads is compared with what the same engine makes of the original.
    engine = _ENGINES.get(made.card.format, "auto")
    before = evaluating.score_kept(path, data, room, _within("before", told), count=count, engine=engine)
    with _read_by_engines(made, told) as weights:
        after = evaluating.score(weights, data, room, _within("now", told), count=count, engine=engine)
    rounded = "weights rounded to int8 where they are not quantised"
    arithmetic = f"both computed by {engine}" if engine != "auto" else "float32 arithmetic" if before.exact else rounded
    by = ", and now rounded to int8 besides" if before.exact and not after.exact else ""
    window = "" if data.questions else f", in windows of {evaluating.WINDOW} tokens"
    figures = Evaluated(
        data=data.name,
        places=after.tokens,
        accuracy_before=before.accuracy,
        accuracy_after=after.accuracy,
        agreement=evaluating.agreement(before, after),
        before=None if data.questions else before.perplexity,
        after=None if data.questions else after.perplexity,
        how=f"over {data.name}{window}, {arithmetic}; before is {path.name}{by}.",
    )
    told_now = replace(made.card, evaluated=(*made.card.evaluated, figures))
    card.write(told_now, made.folder)
    return replace(made, card=told_now)


@contextmanager
def _read_by_engines(made: Made, told: Told) -> Iterator[Path]:
    """The weights as an engine of this machine reads them: those of GPTQ unpacked, which changes no value."""
    if made.card.format != "GPTQ":
        yield made.weights
        return
    from server.models.quantization import gptq_folder

    with tempfile.TemporaryDirectory(prefix="unpacked-", dir=made.folder.parent) as room:
        gptq_folder.dequantised(made.folder, Path(room) / made.folder.name, told)
        yield Path(room) / made.folder.name


# ---- progress -------------------------------------------------------------------------------------------------------


@contextmanager
def _progress(out: Console) -> Iterator[Told]:
    """A bar in a terminal, else a line for every tenth of a step."""
    if not out.is_terminal:
        yield _lines(out)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=out, transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda what, done, whole: bar.update(task, description=what, completed=done, total=whole)


def _within(model: str, told: Told) -> Told:
    return lambda what, done, whole: told(f"{model}: {what}", done, whole)


def _lines(out: Console) -> Told:
    last: list[tuple[str, int]] = []

    def told(what: str, done: int, whole: int) -> None:
        share = 100 * done // max(1, whole)
        step = what.split(" ")[0], share // _EVERY
        if [step] != last:
            last[:] = [step]
            out.print(f"{what}: {share} %", markup=False)
            sys.stdout.flush()

    return told
