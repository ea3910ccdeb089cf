"""The three steps. Each takes its figures from processes of their own, and ends within its time whatever they do."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console

from bench.gpu.arithmetic import Size, limit
from bench.gpu.driving import prompts, server_timed
from bench.gpu.making import SIZES, make
from bench.gpu.report import Figure, Report
from bench.live import hearth
from bench.table import CannotRun
from server.models import cuda
from server.models.engines.exllama import extension

LIMIT_S = 570.0
"""Of a step, below the ten minutes that one may take."""
_STREAMS = (1, 4, 16, 32)
_CACHES = ("fp16", "q8", "q6", "q4")
_FREED_S = 20.0
_FREED = 0.95
"""Of the memory that the worker took, at least this much is free again once it is killed."""


class MeasurementFailed(RuntimeError):
    """One sentence, or the last lines of the process that measured."""


@dataclass
class Check:
    """`device` is cuda, or cpu for a dry run of everything that needs no GPU, on small models and another engine."""

    out: Path
    device: str
    say: Console
    deadline: float = field(default_factory=lambda: time.monotonic() + LIMIT_S)

    def __post_init__(self) -> None:
        self.report = Report.read(self.out)
        self.data = self.out / "data"
        self.dry = self.device == "cpu"
        self.engine = "openvino" if self.dry else "exllamav2"
        self.form = "fp16" if self.dry else "gptq"
        self.caches = ("auto",) if self.dry else _CACHES
        self.streams = _STREAMS[:2] if self.dry else _STREAMS
        self.big = SIZES["tiny" if self.dry else "7b"]

    # ---- step 1: builds, and says what it should -----------------------------------------------------------------

    def first(self) -> None:
        self.report.machine = machine(self.device)
        if not self.dry:
            self._timed(1, "extension built, s", "s", self._build)
        size = SIZES["tiny" if self.dry else "small"]
        models = make(self.out / "models" / "small", size, halves=True)
        self._logits(1, models, size, 128 if self.dry else 512)

    def _build(self) -> float:
        started = time.monotonic()
        command = [sys.executable, "-m", "server", "engines", "--recipe", str(self._recipe({})), "build", "exllamav2"]
        self._run(command)
        return time.monotonic() - started

    def _logits(self, step: int, models: Path, size: Size, tokens: int) -> None:
        """Two figures against transformers, with the issue's bars."""
        told = {"device": self.device, "tokens": tokens, "vocabulary": size.vocabulary, "data": str(self.data)}
        told |= {"kept": str(self.out / "reference.npy"), "engine": self.engine}
        name = "logits" if not self.dry else "prompt log-probabilities"
        try:
            self._task("reference", {**told, "source": str(models / "fp16")})
            keys = {"keys": {"precision": "f32", "weights": "float"}} if self.dry else {}
            task = "scores" if self.dry else "logits"
            found = self._task(task, {**told, "source": str(models / self.form), **keys})
        except MeasurementFailed as error:
            self._missed(step, f"{name}, relative error", error, most=2e-2)
            self._missed(step, f"{name}, same first choice", error, least=0.98)
            return
        self.report.machine["attention"] = found["attention"]
        wide = f"{size.hidden} x {size.layers}"
        self.report.add(
            Figure(step, f"{name} against transformers, relative error ({wide})", found["relative"], most=2e-2),
            Figure(step, f"{name} against transformers, same first choice ({wide})", found["agreement"], least=0.98),
        )

    # ---- step 2: how fast ----------------------------------------------------------------------------------------

    def second(self) -> None:
        if not self.dry:
            middle = make(self.out / "models" / "middle", SIZES["middle"], halves=True)
            self._logits(2, middle, SIZES["middle"], 512)
        models = make(self.out / "models" / "big", self.big, halves=self.dry)
        try:
            self.bandwidth = self._task("bandwidth", {"device": self.device})["bytes_per_second"]
            self.report.add(Figure(2, "memory bandwidth, by copying", self.bandwidth / 1e9, "GB/s"))
        except MeasurementFailed as error:
            self._missed(2, "memory bandwidth, by copying", error)
            return
        for cache in self.caches:
            self._speed(models / self.form, cache)

    def _speed(self, source: Path, cache: str) -> None:
        """Rates with one cache; bars for what the recipe takes unless told otherwise, which comes first."""
        length, tokens = (32, 16) if self.dry else (128, 128)
        told = self._told(source, prompt=length, tokens=tokens, streams=self.streams, cache=cache)
        barred = cache == self.caches[0]
        try:
            found = self._task("speed", {**told, **({"compare": 4} if barred else {})})
        except MeasurementFailed as error:
            self._missed(2, f"speed, {cache} cache", error, least=0.6 if barred and not self.dry else None)
            return
        rates = {row["streams"]: row["rate"] for row in found["rows"]}
        for row in found["rows"]:
            streams, rate = row["streams"], row["rate"]
            share = rate / limit(self.big, self.bandwidth, streams, length + tokens / 2, cache)
            least = 0.6 if streams == 1 and barred and not self.dry else None
            what = f"{cache} cache, {streams} stream{'s' if streams > 1 else ''}"
            self.report.add(
                Figure(2, f"{what}: tokens a second", rate, "tokens/s"),
                Figure(2, f"{what}: first token", 1000 * row["first"], "ms"),
                # The dry run's weights are 16 bits wide, so the limit of four bits is none of it.
                *([] if self.dry else [Figure(2, f"{what}: share of the memory's limit", share, least=least)]),
            )
        if barred:
            self.report.add(Figure(2, "a batch answers as one stream does, share of tokens", found["same"], least=0.95))
            if 16 in rates:
                self.report.add(Figure(2, "16 streams against one, tokens/s", rates[16] / rates[1], "times", least=8.0))

    # ---- step 3: in company --------------------------------------------------------------------------------------

    def third(self) -> None:
        models = make(self.out / "models" / "big", self.big, halves=self.dry)
        self._served(models / self.form)
        self._quantised()

    def _served(self, source: Path) -> None:
        """The real server against the bare generator, and its worker killed."""
        streams, length, tokens = (2, 32, 16) if self.dry else (16, 128, 256)
        least = None if self.dry else 0.97
        name = f"server against bare generator, {streams} streams"
        try:
            bare = self._task("bare", self._told(source, prompt=length, tokens=tokens, streams=streams))["rate"]
            context = -(-(length + tokens + 64) // 256) * 256
            keys = {"engine": self.engine, "source": str(source), "parallel": streams, "context": context}
            keys["cache_tokens"] = streams * context
            before = used_memory()
            with hearth(self._recipe({"chat": keys}), self.data) as live:
                asked = prompts(streams, length, self.big.vocabulary)
                server_timed(live.url, "chat", asked[:1], 4)
                rate = server_timed(live.url, "chat", asked, tokens).rate
                self.report.add(
                    Figure(3, f"{name}: server", rate, "tokens/s"), Figure(3, f"{name}: bare", bare, "tokens/s")
                )
                self.report.add(Figure(3, name, rate / bare, least=least))
                self._killed(live.url, live.pid, before)
        except (MeasurementFailed, CannotRun, RuntimeError, httpx.HTTPError) as error:
            self._missed(3, name, error, least=least)

    def _killed(self, url: str, gateway: int, before: int | None) -> None:
        """kill -9 of the worker: its memory is free, and another one serves."""
        worker = _worker(gateway)
        if worker is None:
            self._missed(
                3, "memory freed by kill -9 of the worker", MeasurementFailed("no worker was found"), least=_FREED
            )
            return
        loaded = used_memory()
        os.kill(worker, signal.SIGKILL)
        until = time.monotonic() + _FREED_S
        while _alive(worker) and time.monotonic() < until:
            time.sleep(0.05)  # another process' child, which cannot be waited for
        self.report.add(Figure(3, "worker gone after kill -9", 0.0 if _alive(worker) else 1.0, least=1.0))
        if before is not None and loaded is not None and loaded > before:
            # The next worker may be loading already, so the least that was seen counts.
            least = loaded
            while time.monotonic() < until and (loaded - least) / (loaded - before) < _FREED:
                least = min(least, used_memory() or least)
            freed = (loaded - least) / (loaded - before)
            self.report.add(Figure(3, "memory freed by kill -9 of the worker", freed, least=_FREED))
        elif not self.dry:
            reason = MeasurementFailed("nvidia-smi does not tell the memory used")
            self._missed(3, "memory freed by kill -9 of the worker", reason, least=_FREED)
        again = time.monotonic()
        served = self._serves(url)
        self.report.add(Figure(3, "serves again after kill -9", 1.0 if served else 0.0, least=1.0))
        self.report.add(Figure(3, "time until it does", time.monotonic() - again, "s"))

    def _serves(self, url: str) -> bool:
        until = min(self.deadline, time.monotonic() + 120)
        while time.monotonic() < until:
            try:
                server_timed(url, "chat", prompts(1, 8, self.big.vocabulary), 2)
            except (RuntimeError, httpx.HTTPError):
                time.sleep(0.2)  # the worker starts anew
                continue
            return True
        return False

    def _quantised(self) -> None:
        """`hearth quantize --eval`, to exl2 on a GPU and to gguf in a dry run."""
        size = SIZES["tiny" if self.dry else "short"]
        models = make(self.out / "models" / "short", size, halves=True)
        form = "gguf" if self.dry else "exl2"
        made = self.out / "models" / f"short-{form}"
        command = [sys.executable, "-m", "server", "quantize", str(models / "fp16"), "--to", form, "--bits", "4"]
        command += ["--out", str(made), "--recipe", str(self._recipe({})), "--eval", "--data", str(self._text())]
        try:
            self._run(command)
            told = json.loads((made / "quantized.json").read_text(encoding="utf-8"))
        except (MeasurementFailed, OSError) as error:
            self._missed(3, f"quantised to {form} and measured", error, least=0.0)
            return
        figures = told["evaluated"][-1]
        self.report.add(
            Figure(3, f"{form}: smaller by", 100 * (1 - told["bytes"] / told["half_bytes"]), "%", least=0.0),
            Figure(3, f"{form}: perplexity before", figures["before"]),
            Figure(3, f"{form}: perplexity now", figures["after"]),
            Figure(3, f"{form}: same first choice", 100 * figures["agreement"], "%"),
        )

    # ---- how ----------------------------------------------------------------------------------------------------

    def _told(self, source: Path, **more: Any) -> dict[str, Any]:
        told = {"engine": self.engine, "source": str(source), "data": str(self.data), "device": self.device}
        return {**told, "vocabulary": self.big.vocabulary, **more}

    def _text(self) -> Path:
        """A text for the perplexity of random weights, which mean nothing: what counts is how it changes."""
        file = self.out / "text.txt"
        pages = sorted(Path(__file__).parents[2].joinpath("recipes", "handbook").glob("*.md"))
        file.write_text("\n".join(page.read_text(encoding="utf-8") for page in pages)[:8000], encoding="utf-8")
        return file

    def _recipe(self, models: dict[str, dict[str, Any]]) -> Path:
        file = self.out / "recipe.yaml"
        self.out.mkdir(parents=True, exist_ok=True)
        said = {
            "version": 1,
            "server": {"data": str(self.data.resolve())},
            "models": models or {"echo": {"engine": "echo"}},
        }
        file.write_text(json.dumps(said), encoding="utf-8")  # JSON is YAML
        return file

    def _timed(self, step: int, name: str, unit: str, measure: Callable[[], float]) -> None:
        try:
            self.report.add(Figure(step, name, measure(), unit, most=LIMIT_S))
        except MeasurementFailed as error:
            self._missed(step, name, error, most=LIMIT_S)

    def _missed(
        self, step: int, name: str, error: Exception, *, least: float | None = None, most: float | None = None
    ) -> None:
        self.say.print(f"{name}: not measured: {error}", markup=False)
        last = (str(error).strip().splitlines() or ["no reason"])[-1]
        self.report.add(Figure(step, name, least=least, most=most, missed=last))

    def _task(self, name: str, told: dict[str, Any]) -> dict[str, Any]:
        said = self._run([sys.executable, "-m", "bench.gpu.measuring", name, json.dumps(told)])
        found: dict[str, Any] = json.loads(said.splitlines()[-1])
        return found

    def _run(self, command: list[str]) -> str:
        """What the process printed. Raises MeasurementFailed with its last lines, or when the step's time is over."""
        left = self.deadline - time.monotonic()
        if left <= 1:
            raise MeasurementFailed("the time of this step was over")
        self.say.print(f"{' '.join(command[2:4])} ...", markup=False)
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
            start_new_session=True,
        )
        try:
            said, complained = process.communicate(timeout=left)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise MeasurementFailed("the time of this step was over") from None
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise
        if process.returncode:
            raise MeasurementFailed("\n".join([*said.splitlines()[-3:], *complained.splitlines()[-12:]]))
        return said


# ---- the machine ----------------------------------------------------------------------------------------------------


def lacking() -> str | None:
    """In one sentence what this machine needs before the check can begin; None where it has everything."""
    if not cuda.gpus():
        return "no CUDA device: nvidia-smi finds no NVIDIA GPU; `scripts/gpu-check all --device cpu` is a dry run"
    if (reason := cuda.torch_lacks()) is not None:
        return f"{reason}: install one from pytorch.org"
    for package in ("transformers", "exllamav2"):
        if (extension.version(package) if package == "exllamav2" else _version(package)) is None:
            extra = "cuda" if package == "exllamav2" else "transformers"
            return f"{package} is not installed; run: pip install 'hearth[{extra}]'"
    if (
        shutil.which("nvcc") is None
        and not Path(os.environ.get("CUDA_HOME", "/usr/local/cuda"), "bin", "nvcc").exists()
    ):
        return "nvcc is not installed, and the extension of exllamav2 is compiled with it: install the CUDA toolkit"
    return None


def machine(device: str) -> dict[str, Any]:
    """What the figures were measured on."""
    found = [f"{gpu.name} (sm {gpu.capability})" for gpu in cuda.gpus()]
    told: dict[str, Any] = {"device": ", ".join(found) if device == "cuda" else f"cpu, {os.cpu_count()} processors"}
    told["when"] = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    return told | {name: _version(name) for name in ("hearth", "torch", "transformers", "exllamav2") if _version(name)}


def used_memory() -> int | None:
    """Bytes of all GPUs that are in use; None where the driver does not tell."""
    found = [(gpu.total, gpu.free) for gpu in cuda.gpus()]
    known = [total - free for total, free in found if total is not None and free is not None]
    return sum(known) if known and len(known) == len(found) else None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _worker(gateway: int) -> int | None:
    """The one process that the gateway has started for its model, by /proc."""
    children = Path(f"/proc/{gateway}/task/{gateway}/children")
    found = [int(each) for each in children.read_text(encoding="utf-8").split()] if children.exists() else []
    named = [each for each in found if b"worker" in Path(f"/proc/{each}/cmdline").read_bytes()]
    return (named or found or [None])[0]


def _alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in ("Z", "X")
