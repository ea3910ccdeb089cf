"""The three steps. Each takes its figures from processes of their own, and ends within its time whatever they do."""

import json
import os
import signal
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
from bench.gpu.behaving import BEHAVIOURS, FIGURES
from bench.gpu.driving import prompts, server_timed
from bench.gpu.machine import alive, machine, used_memory, worker_of
from bench.gpu.making import SIZES
from bench.gpu.pictures import FAMILIES
from bench.gpu.pictures import FIGURES as OF_PICTURES
from bench.gpu.processes import MeasurementFailed, run
from bench.gpu.report import Figure, Report
from bench.live import hearth
from bench.table import CannotRun
from server.models import cuda
from server.models.engines.exllama import extension

LIMIT_S = 570.0
"""Of a step, below the ten minutes that one may take."""
_TASK_S, _LONG_S = 150.0, 400.0
"""Of one measurement, and of one that compiles or converts: one that hangs leaves the others their time."""
_STREAMS = (1, 4, 16, 32)
_CACHES = ("fp16", "q8", "q6", "q4")
_GAIN = 1.4
"""Times that the Triton kernel should be faster than torch over long contexts: what kernels tuned by hand gain."""
_FREED_S = 20.0
_FEW = 8
_FREED = 0.95
"""Of the memory that the worker took, at least this much is free again once it is killed."""


@dataclass
class Check:
    """`device` is cuda, or cpu for a dry run of everything that needs no GPU, on small models and another engine."""

    out: Path
    device: str
    say: Console
    deadline: float = field(default_factory=lambda: time.monotonic() + LIMIT_S)

    def __post_init__(self) -> None:
        self.report = Report.read(self.out, self._heard)
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
        self.rates: dict[int, float] = {}
        """Tokens a second of so many streams, with the cache that a recipe takes unless told otherwise."""

    def _heard(self, figure: Figure) -> None:
        """Said at once, so that a log that is cut shows it too."""
        value = figure.missed if figure.value is None else f"{figure.value:.4g} {figure.unit}".rstrip()
        self.say.print(f"{figure.name}: {value} ({figure.state})", markup=False)

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
        seen = [partial(self._pictures, engine, family) for engine in self._seeing() for family in FAMILIES[engine]]
        built = [] if self.dry else [self._built]
        size = "tiny" if self.dry else "small"
        return [*built, partial(self._logits, 1, size), partial(self._generated, 1, size), *seen]

    def _built(self) -> None:
        self._timed(1, "extension built, s", "s", self._build)

    def _build(self) -> float:
        started = time.monotonic()
        command = [sys.executable, "-m", "server", "engines", "--recipe", str(self._recipe({})), "build", "exllamav2"]
        self._run(command, _LONG_S)
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

    def _seeing(self) -> list[str]:
        """The engines whose pictures are compared: the other one too, where its extension is built already."""
        other = extension.state("exllamav3", self.data, cuda.gpus()).reason is None
        return [] if self.dry else ["exllamav2", *(["exllamav3"] if other else [])]

    def _pictures(self, engine: str, family: str) -> None:
        told = {"engine": engine, "family": family, "device": self.device, "data": str(self.data)}
        try:
            found = self._task("pictures", {**told, "folder": str(self.out / "pictures")})
        except MeasurementFailed as error:
            for what, least, most in OF_PICTURES.values():
                self._missed(1, f"{engine}, {family}: {what}", error, least=least, most=most)
            return
        for key, (what, least, most) in OF_PICTURES.items():
            self.report.add(Figure(1, f"{engine}, {family}: {what}", found[key], least=least, most=most))

    def _generated(self, step: int, name_of_size: str) -> None:
        """Tokens that came one by one, through pages and with others beside them, in the eyes of transformers."""
        size, tokens = SIZES[name_of_size], 16 if self.dry else 128
        name = f"generated tokens that are transformers' first choice too ({size.hidden} x {size.layers})"
        try:
            models = self._model(name_of_size, halves=True)
            told = self._told(models / self.form, prompt=300, tokens=tokens, streams=4, vocabulary=size.vocabulary)
            exact = {"keys": {"precision": "f32", "weights": "float", "cache": "f32"}} if self.dry else {}
            found = self._task("generated", told | exact)
            judged = self._task("judged", {"source": str(models / "fp16"), "device": self.device, **found})
        except MeasurementFailed as error:
            self._missed(step, name, error, least=0.98)
            return
        self.report.add(Figure(step, name, judged["agreement"], least=0.98))

    # ---- step 2: how it behaves, and how fast ----------------------------------------------------------------------

    def _second(self) -> list[Callable[[], None]]:
        """What matters most first, as the time may be over before the end."""
        logits = [] if self.dry else [partial(each, 2, "middle") for each in (self._logits, self._generated)]
        speeds = [partial(self._speed, cache) for cache in self.caches]
        behaviours = [partial(self._behaviour, name) for name in BEHAVIOURS]
        gain = [] if self.dry else [self._gain]
        return [*logits, self._bandwidth, self._kernel, speeds[0], *gain, *behaviours, *speeds[1:]]

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
        if found["objection"] is not None:
            self.report.told["Triton kernel not taken"] = found["objection"]
        for row in found["rows"]:
            self._attention(row)
        self.report.save()

    def _attention(self, row: dict[str, Any]) -> None:
        """The figures of one row of `measuring.kernel`."""
        what = f"attention of new tokens, {row['streams']} x {row['length']}"
        taken = min(row[way] for way in ("torch", "triton") if row[way] is not None)
        self.attention.setdefault(row["streams"], taken / 1000)
        for way in ("torch", "triton"):
            if row[way] is None:
                continue
            self.report.add(
                Figure(2, f"{what}: a call by {way}", row[way], "ms"),
                Figure(2, f"{what}: {way} beside keys that lie in order", row[way] / row["order"], "times"),
            )
            if self.bandwidth is not None and not self.dry:
                share = row["bytes"] / (row[way] / 1000) / self.bandwidth
                self.report.add(Figure(2, f"{what}: {way}, share of the memory bandwidth", share))
            parts = ", ".join(f"{name} {100 * part:.0f} %" for name, part in row["parts"][way].items())
            self.report.told[f"{what} by {way}"] = parts
        gain = None if row["triton"] is None else row["torch"] / row["triton"]
        # Against torch, which is what ExLlamaV2 would have without flash-attn.
        name, missed = f"{what}: gain by the Triton kernel", None if gain else "the Triton kernel does not run here"
        if not self.dry:
            self.report.add(
                Figure(2, name, gain, "times", least=_GAIN if row["length"] > 1000 else None, missed=missed)
            )

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
        if barred:
            self.rates = rates
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

    def _gain(self) -> None:
        """The same model with attention by torch alone: what the Triton kernel makes of tokens a second."""
        length, tokens = self.lengths
        name = "tokens/s with the Triton kernel beside torch alone"
        streams = (1, 16)
        try:
            told = self._told(self._model("7b", halves=False) / self.form, prompt=length, tokens=tokens)
            told |= {"streams": streams, "cache": self.caches[0], "by_torch": True}
            found = self._task("speed", told)
        except MeasurementFailed as error:
            self._missed(2, name, error)
            return
        for row in found["rows"]:
            if (rate := self.rates.get(row["streams"])) is not None:
                self.report.add(Figure(2, f"{name}, {row['streams']} at once", rate / row["rate"], "times"))

    # ---- step 3: in company --------------------------------------------------------------------------------------

    def _third(self) -> list[Callable[[], None]]:
        return [self._served, self._quantised]

    def _served(self) -> None:
        """The real server, its worker killed, and the bare generator beside it."""
        streams, length, tokens = (2, 32, 16) if self.dry else (16, 128, 256)
        least = None if self.dry else 0.97
        name = f"server against bare generator, {streams} streams"
        try:
            source = self._model("tiny" if self.dry else "7b", halves=self.dry) / self.form
            rate = self._rate_of_server(name, source, streams, length, tokens)
            bare = self._task("bare", self._told(source, prompt=length, tokens=tokens, streams=streams))["rate"]
        except (MeasurementFailed, CannotRun, RuntimeError, httpx.HTTPError) as error:
            self._missed(3, name, error, least=least)
            return
        self.report.add(Figure(3, f"{name}: bare", bare, "tokens/s"), Figure(3, name, rate / bare, least=least))

    def _rate_of_server(self, name: str, source: Path, streams: int, length: int, tokens: int) -> float:
        context = -(-(length + tokens + 64) // 256) * 256
        keys = {"engine": self.engine, "source": str(source), "parallel": streams, "context": context}
        keys["cache_tokens"] = streams * context
        before = used_memory()
        with hearth(self._recipe({"chat": keys}), self.data) as live:
            asked = prompts(streams, length, self.big.vocabulary)
            # Once as it will be, so that nothing is compiled or set aside while it is timed.
            server_timed(live.url, "chat", asked, _FEW)
            rate = server_timed(live.url, "chat", asked, tokens).rate
            self.report.add(Figure(3, f"{name}: server", rate, "tokens/s"))
            try:
                self._killed(live.url, live.pid, before)
            except (OSError, RuntimeError, httpx.HTTPError) as error:
                self._missed(3, "memory freed by kill -9 of the worker", error, least=_FREED)
        return rate

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
            self._run([*command, *(["--calibration", str(self._text())] if self.dry else [])], _LONG_S)
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

    def _run(self, command: list[str], most: float = _TASK_S) -> str:
        """See `processes.run`; what is left of the step is a limit too."""
        self.say.print(f"{' '.join(command[2:4])} ...", markup=False)
        return run(command, most, self.deadline - time.monotonic())
