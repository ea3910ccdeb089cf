"""EXL2 and EXL3, made by the converters of exllamav2 and exllamav3 in a process of their own.

Both calibrate with a text that their packages bring, compute on one CUDA device and go on with what is in their work
folder. Progress is what they print: exllamav2 in status lines for programs, exllamav3 a line for each module.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from server.models import cuda, native
from server.models.engines.exllama import extension, preflight
from server.models.header import config, parts
from server.models.quantization.fault import QuantizeError, Told
from server.models.quantization.work import alone, digest, sha256, sync

_ENGINES = {"exl2": "exllamav2", "exl3": "exllamav3"}
_MODULES = {"exl2": "exllamav2.conversion.convert_exl2", "exl3": "exllamav3.conversion.convert_model"}
_LEAST = {"exl2": 2.0, "exl3": 1.0}
_MOST = 8.0
_STATUS = re.compile(r"\[STATUS\](?P<status>\{.*?\})\[/STATUS\]")
_QUANTISED = re.compile(r"-- Quantized: (?P<module>\S+)")
_BLOCK = re.compile(r"\.layers\.(?P<number>\d+)\b")
_RUN = """
import importlib.util, runpy, sys, types
for name in ("pandas", "fastparquet"):
    if importlib.util.find_spec(name) is None:
        sys.modules[name] = types.ModuleType(name)
runpy.run_module(sys.argv[1], run_name="__main__", alter_sys=True)
"""
"""Runs a converter. exllamav2's imports two packages for texts in parquet files, of which it is given none here."""
_LAST_LINES = 12
_PATIENCE_S = 30.0
"""How long a converter has to end itself when this run is broken off."""


@dataclass(frozen=True)
class Step:
    """What a converter's line tells: hundredths done, of a stage by its name."""

    stage: str
    percent: int


def engine(form: str) -> str:
    """The engine that reads and makes `form`, exl2 or exl3."""
    return _ENGINES[form]


def lacking(form: str, folder: Path, bits: float, data: Path) -> str | None:
    """In one sentence what keeps this machine from making `form` of `folder`; None where nothing does."""
    if not _LEAST[form] <= bits <= _MOST:
        return f"--bits {bits:g}: {form} is made with {_LEAST[form]:g} to {_MOST:g} bits"
    if not folder.is_dir():
        return f"{folder}: {form} is made of a folder with safetensors, not of a GGUF file"
    name = _ENGINES[form]
    if (reason := extension.state(name, data, cuda.gpus()).reason) is not None:
        return f"{form} is made by {name}, and that cannot be used: {reason}"
    kind = preflight.quantised(folder, config(folder)).kind
    if kind != "float":
        return f"{folder}: its weights are quantised already, by {kind}; {form} is made of 16-bit floats"
    if (objection := preflight.objection(name, folder)) is not None:
        return f"{folder}: {name} cannot make it: {objection}"
    return None


def identity(form: str, folder: Path, bits: float) -> str:
    """Changes with whatever decides what is written."""
    files = {file.name: [file.stat().st_size, file.stat().st_mtime_ns] for file in sorted(folder.glob("*.*"))}
    return digest([form, extension.version(_ENGINES[form]), files, bits])


def write(form: str, folder: Path, out: Path, bits: float, data: Path, told: Told) -> dict[str, str]:
    """The model of `folder` as `form` at `out`, which is not there yet. `data` is the data directory.

    Returns the SHA-256 of each file of weights. Raises QuantizeError, with the converter's last lines where it failed.
    """
    if (missing := lacking(form, folder, bits, data)) is not None:
        raise QuantizeError(missing)
    work = out.with_name(f".{out.name}.quantizing")
    with alone(work):
        job, made = _begin(work, identity(form, folder, bits))
        source = _source(form, folder, work)
        last = _convert(form, command(form, source, job, made, bits), environment(form, data), _layers(folder), told)
        if not (made / "config.json").is_file() or not parts(made):
            # They end with exit code 0 whatever they complain of.
            raise QuantizeError("\n".join([f"{_ENGINES[form]}'s converter ended without a model:", *last]))
        sums = {file.name: sha256(file) for file in parts(made)}
        made.replace(out)
        sync(out.parent)
    shutil.rmtree(work)
    return sums


def command(form: str, source: Path, job: Path, made: Path, bits: float) -> list[str]:
    """How the converter is called; `job` is its work folder, which it goes on with where it holds a cut run."""
    said = [sys.executable, "-u", "-c", _RUN, _MODULES[form], "-b", f"{bits:g}"]
    if form == "exl2":
        return [*said, "-i", str(source), "-o", str(job), "-cf", str(made), "-hb", "6", "-so"]
    resumes = (job / "ckpt" / "job.json").exists()
    return [*said, "-w", str(job), *(["-r"] if resumes else ["-i", str(source), "-o", str(made)]), "-hb", "6"]


def environment(form: str, data: Path) -> dict[str, str]:
    """This process's, with the extension that was built here in front.

    Without flash-attn exllamav2 would take torch's fused attention, with no causal mask, for the calibration too.
    """
    capabilities = tuple(gpu.capability for gpu in cuda.gpus())
    built = extension.found(native.home(data), _ENGINES[form], capabilities)
    paths = [*([] if built is None else [str(built)]), *filter(None, [os.environ.get("PYTHONPATH")])]
    made = {**os.environ, "EXLLAMA_NO_SDPA": "1"}
    return {**made, "PYTHONPATH": os.pathsep.join(paths)} if paths else made


def steps(lines: Iterable[str], layers: int) -> Iterator[Step]:
    """What the lines of either converter tell of how far it is; a model of `layers` layers."""
    for line in lines:
        if (found := _STATUS.search(line)) is not None:
            status = json.loads(found["status"])
            yield Step(str(status["stage"]), int(100 * float(status["completion"])))
        elif (found := _QUANTISED.search(line)) is not None:
            number = _BLOCK.search(found["module"])
            if number is not None:
                yield Step("Quantizing", 100 * (int(number["number"]) + 1) // max(1, layers))


def _begin(work: Path, plan: str) -> tuple[Path, Path]:
    """The converter's work folder and the one for what it makes, emptied where they are of another plan."""
    noted, job, made = work / "plan", work / "job", work / "made"
    if not noted.exists() or noted.read_text(encoding="utf-8") != plan:
        for each in (job, made):
            shutil.rmtree(each, ignore_errors=True)
        noted.write_text(plan, encoding="utf-8")
        sync(noted)
    for each in (job, made):
        each.mkdir(exist_ok=True)
    return job, made


def _source(form: str, folder: Path, work: Path) -> Path:
    """The folder as the converter understands it, at a place that stays the same from run to run."""
    told = config(folder)
    if form != "exl2" or (made := preflight.rewritten(told)) == told:
        return folder
    source = work / "source"
    shutil.rmtree(source, ignore_errors=True)
    source.mkdir()
    for file in folder.iterdir():
        if file.is_file() and file.name != "config.json":
            (source / file.name).symlink_to(file.resolve())
    (source / "config.json").write_text(json.dumps(made, indent=2), encoding="utf-8")
    return source


def _layers(folder: Path) -> int:
    told = config(folder)
    inner = told.get("text_config")
    return int(told.get("num_hidden_layers") or (inner or {}).get("num_hidden_layers") or 1)


def _convert(form: str, said: list[str], surroundings: dict[str, str], layers: int, told: Told) -> list[str]:
    """Run the converter to its end; returns its last lines. Raises QuantizeError; a run broken off takes it along."""
    last: deque[str] = deque(maxlen=_LAST_LINES)

    def lines(stream: Iterable[str]) -> Iterator[str]:
        for line in stream:
            if line.strip() and not _STATUS.search(line):
                last.append(line.rstrip())
            yield line

    process = subprocess.Popen(
        said,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        errors="replace",
        env=surroundings,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        for step in steps(lines(process.stdout), layers):
            told(f"{form}: {step.stage}", step.percent, 100)
        ended = process.wait()
    except BaseException:
        _stop(process)
        raise
    finally:
        assert process.stdout is not None
        process.stdout.close()
    if ended != 0:
        raise QuantizeError("\n".join([f"{_ENGINES[form]}'s converter ended with exit code {ended}:", *last]))
    return list(last)


def _stop(process: "subprocess.Popen[str]") -> None:
    """Ask the converter to end, so that its work folder is whole, and see that it does."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGINT)
    try:
        process.wait(_PATIENCE_S)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
