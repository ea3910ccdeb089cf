"""The three steps. Each takes its figures from processes of their own, and ends within its time whatever they do."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console

from bench.gpu.arithmetic import limit
from bench.gpu.behaving import BEHAVIOURS
from bench.gpu.driving import prompts, server_timed
from bench.gpu.machine import alive, machine, used_memory, worker_of
from bench.gpu.making import SIZES
from bench.gpu.report import Figure, Report
from bench.live import hearth
from bench.table import CannotRun

LIMIT_S = 570.0
"""Of a step, below the ten minutes that one may take."""
_STREAMS = (1, 4, 16, 32)
_CACHES = ("fp16", "q8", "q6", "q4")
_FREED_S = 20.0
_FREED = 0.95
"""Of the memory that the worker took, at least this much is free again once it is killed."""


FIGURES: dict[str, dict[str, tuple[str, float | None, float | None]]] = {
    "cancelled": {
        "late": ("events of a request after it was cancelled", None, 0.0),
        "same": ("the request beside a cancelled one answers as alone, share of tokens", 0.95, None),
        "begun": ("a request for all the room begins after a cancelled one", 1.0, None),
    },
    "overlong": {
        "refused": ("a prompt over the context is refused by its fault", 1.0, None),
        "answered": ("the request after an over-long one is answered", 1.0, None),
    },
    "shared_prefix": {
        "kept": ("share of a beginning read before that is not computed again", 0.7, None),
        "first": ("first token after a beginning read before, beside the first time", None, None),
        "same": ("two answers after it alike, share of tokens", 0.95, None),
    },
    "grammar": {"valid": ("8 answers at once that conform to a JSON schema, share", 1.0, None)},
}
"""What each behaviour's figures are called, and their bars: at least, at most."""


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
        self.lengths = (32, 16) if self.dry else (128, 128)
        """Tokens of the prompts and of the answers whose speed is measured."""
        self.bandwidth: float | None = None
        self.attention: dict[int, float] = {}
        """Seconds that our attention takes for one new token of so many streams."""

    def step(self, number: int) -> None:
        """Every check of a step, each whatever became of those before it."""
        for check in {1: self._first, 2: self._second, 3: self._third}[number]():
            try:
                check()
            except Exception as error:  # noqa: BLE001 - one that breaks in a way of its own costs its figures alone
                name = getattr(check, "func", check).__name__.strip("_").replace("_", " ")
                self._missed(number, f"the check {name}", error, least=0.0)

    # ---- step 1: builds, and says what it should -----------------------------------------------------------------

    def _first(self) -> list[Callable[[], None]]:
        self.report.machine = machine(self.device)
        self.report.save()
        return [*([] if self.dry else [self._built]), partial(self._logits, 1, "tiny" if self.dry else "small")]

    def _built(self) -> None:
        self._timed(1, "extension built, s", "s", self._build)

    def _build(self) -> float:
        started = time.monotonic()
        command = [sys.executable, "-m", "server", "engines", "--recipe", str(self._recipe({})), "build", "exllamav2"]
        self._run(command)
        return time.monotonic() - started

    def _logits(self, step: int, name_of_size: str) -> None:
        """Two figures against transformers, with the issue's bars."""
        size, tokens = SIZES[name_of_size], 128 if self.dry else 512
        told = {"device": self.device, "tokens": tokens, "vocabulary": size.vocabulary, "data": str(self.data)}
        told |= {"kept": str(self.out / "reference.npy"), "engine": self.engine}
        name = "logits" if not self.dry else "prompt log-probabilities"
        try:
            models = self._model(name_of_size, halves=True)
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

    # ---- step 2: how it behaves, and how fast ----------------------------------------------------------------------

    def _second(self) -> list[Callable[[], None]]:
        logits = [] if self.dry else [partial(self._logits, 2, "middle")]
        behaviours = [partial(self._behaviour, name) for name in BEHAVIOURS]
        speeds = [partial(self._speed, cache) for cache in self.caches]
        return [*logits, *behaviours, self._bandwidth, self._kernel, *speeds]

    def _behaviour(self, name: str) -> None:
        size = "tiny" if self.dry else "middle"
        try:
            source = self._model(size, halves=True) / self.form
            asked = self._told(source, behaviour=name, vocabulary=SIZES[size].vocabulary)
            found = self._task("behaviour", asked)
        except MeasurementFailed as error:
            for what, least, most in FIGURES[name].values():
                self._missed(2, what, error, least=least, most=most)
            return
        for key, (what, least, most) in FIGURES[name].items():
            self.report.add(Figure(2, what, found[key], least=least, most=most))

    def _bandwidth(self) -> None:
        try:
            self.bandwidth = self._task("bandwidth", {"device": self.device})["bytes_per_second"]
            self.report.add(Figure(2, "memory bandwidth, by copying", self.bandwidth / 1e9, "GB/s"))
        except MeasurementFailed as error:
            self._missed(2, "memory bandwidth, by copying", error)

    def _kernel(self) -> None:
        """How long our attention takes for new tokens: at the lengths that `_speed` is measured at, and long ones."""
        length, tokens = self.lengths
        shapes = [(streams, length + tokens // 2) for streams in self.streams]
        shapes += [(streams, 300 if self.dry else 4096) for streams in (1, self.streams[-1])]
        big = self.big
        told = {"device": self.device, "heads": big.heads, "kv_heads": big.kv_heads, "width": big.head_dim}
        told["shapes"] = shapes
        try:
            found = self._task("kernel", told)
        except MeasurementFailed as error:
            self._missed(2, "attention of new tokens", error)
            return
        self.report.machine["attention of new tokens"] = found["attention"]
        for row in found["rows"]:
            streams, length = row["streams"], row["length"]
            what = f"attention of new tokens, {streams} x {length}"
            self.attention.setdefault(streams, row["paged"] / 1000)
            self.report.add(
                Figure(2, f"{what}: a call", row["paged"], "ms"),
                Figure(2, f"{what}: beside keys that lie in order", row["paged"] / row["plain"], "times"),
            )
            if self.bandwidth is not None and not self.dry:
                share = row["bytes_per_second"] / self.bandwidth
                self.report.add(Figure(2, f"{what}: share of the memory bandwidth", share))
            parts = ", ".join(f"{name} {100 * part:.0f} %" for name, part in row["parts"].items())
            self.report.told[what] = parts
        self.report.save()

    def _speed(self, cache: str) -> None:
        """Rates with one cache; bars for what the recipe takes unless told otherwise, which comes first."""
        length, tokens = self.lengths
        barred = cache == self.caches[0]
        try:
            source = self._model("tiny" if self.dry else "7b", halves=self.dry) / self.form
            told = self._told(source, prompt=length, tokens=tokens, streams=self.streams, cache=cache)
            found = self._task("speed", {**told, **({"compare": 4} if barred else {})})
        except MeasurementFailed as error:
            self._missed(2, f"speed, {cache} cache", error, least=0.6 if barred and not self.dry else None)
            return
        rates = {row["streams"]: row["rate"] for row in found["rows"]}
        for row in found["rows"]:
            streams, rate = row["streams"], row["rate"]
            least = 0.6 if streams == 1 and barred and not self.dry else None
            what = f"{cache} cache, {streams} stream{'s' if streams > 1 else ''}"
            self.report.add(
                Figure(2, f"{what}: tokens a second", rate, "tokens/s"),
                Figure(2, f"{what}: first token", 1000 * row["first"], "ms"),
                # The dry run's weights are 16 bits wide, so the limit of four bits is none of it.
                *([] if self.dry else [self._share(what, rate, streams, length + tokens / 2, cache, least)]),
            )
            if barred and not self.dry and streams in self.attention:
                share = self.big.layers * self.attention[streams] * rate / streams
                self.report.add(Figure(2, f"{what}: share of a step that our attention takes, if it is used", share))
        if barred:
            self.report.add(Figure(2, "a batch answers as one stream does, share of tokens", found["same"], least=0.95))
            if 16 in rates:
                self.report.add(Figure(2, "16 streams against one, tokens/s", rates[16] / rates[1], "times", least=8.0))

    # ---- step 3: in company --------------------------------------------------------------------------------------

    def _third(self) -> list[Callable[[], None]]:
        return [self._served, self._quantised]

    def _served(self) -> None:
        """The real server against the bare generator, and its worker killed."""
        streams, length, tokens = (2, 32, 16) if self.dry else (16, 128, 256)
        least = None if self.dry else 0.97
        name = f"server against bare generator, {streams} streams"
        try:
            source = self._model("tiny" if self.dry else "7b", halves=self.dry) / self.form
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
        worker = worker_of(gateway)
        if worker is None:
            self._missed(
                3, "memory freed by kill -9 of the worker", MeasurementFailed("no worker was found"), least=_FREED
            )
            return
        loaded = used_memory()
        os.kill(worker, signal.SIGKILL)
        until = time.monotonic() + _FREED_S
        while alive(worker) and time.monotonic() < until:
            time.sleep(0.05)  # another process' child, which cannot be waited for
        self.report.add(Figure(3, "worker gone after kill -9", 0.0 if alive(worker) else 1.0, least=1.0))
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
        form = "gguf" if self.dry else "exl2"
        made = self.out / "models" / f"short-{form}"
        try:
            models = self._model("tiny" if self.dry else "short", halves=True)
            command = [sys.executable, "-m", "server", "quantize", str(models / "fp16"), "--to", form, "--bits", "4"]
            command += ["--out", str(made), "--recipe", str(self._recipe({})), "--eval", "--data", str(self._text())]
            self._run([*command, *(["--calibration", str(self._text())] if self.dry else [])])
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

    def _model(self, name: str, *, halves: bool) -> Path:
        """The folder of a model of the check, made in a process of its own where it is not there."""
        folder = self.out / "models" / name
        if not (folder / "done").exists():
            self._task("made", {"folder": str(folder), "size": name, "halves": halves})
        return folder

    def _share(self, what: str, rate: float, streams: int, context: float, cache: str, least: float | None) -> Figure:
        """A rate beside what the memory allows."""
        name = f"{what}: share of the memory's limit"
        if self.bandwidth is None:
            return Figure(2, name, least=least, missed="the memory bandwidth is not known")
        return Figure(2, name, rate / limit(self.big, self.bandwidth, streams, context, cache), least=least)

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
