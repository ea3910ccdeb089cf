"""`scripts/gpu-check` where there is no GPU: its arithmetic, its report, its models, and how it refuses."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import msgspec
import numpy as np
import pytest
from rich.console import Console

from bench.gpu import measuring
from bench.gpu.arithmetic import Size, agreement, limit, relative_error, same_tokens
from bench.gpu.behaving import BEHAVIOURS, FIGURES, ROOM, conforms
from bench.gpu.checks import Check
from bench.gpu.making import SIZES, make
from bench.gpu.measuring import loaded
from bench.gpu.processes import MeasurementFailed
from bench.gpu.report import FILE, Figure, Report
from server.models.engine import Delta, Engine, Event, Generate
from tests.making import made
from tests.making.oracle import needs_torch

ROOT = Path(__file__).parents[2]
SEVEN = SIZES["7b"]


def test_the_limit_is_what_one_step_has_to_read() -> None:
    # 6.48e9 weights of 4 + 20/128 bits, and a head of 32000 x 4096 at 16 bits.
    assert SEVEN.matrices == 6_476_005_376
    assert SEVEN.read_bytes == pytest.approx(6_476_005_376 * 4.15625 / 8 + 2 * 32_000 * 4096)
    assert SEVEN.cache_bytes("fp16") == 2 * 32 * 4096 * 2
    one = limit(SEVEN, 3.35e12, 1, 0, "fp16")
    assert one == pytest.approx(3.35e12 / SEVEN.read_bytes)
    assert limit(SEVEN, 3.35e12, 16, 0, "fp16") == pytest.approx(16 * one)
    assert 16 * one > limit(SEVEN, 3.35e12, 16, 1000, "q4") > limit(SEVEN, 3.35e12, 16, 1000, "fp16")


def test_how_far_two_answers_are_apart() -> None:
    wanted = np.array([[3.0, 4.0], [0.0, 1.0]], np.float32)
    assert relative_error(wanted, wanted) == 0 and agreement(wanted, wanted) == 1
    assert agreement(wanted[:, ::-1], wanted) == 0
    assert relative_error(2 * wanted, wanted) == pytest.approx(1.0)
    assert same_tokens([[1, 2, 3], [4]], [[1, 2, 9], [4]]) == 0.75
    assert same_tokens([[1, 2]], [[1]]) == 0.5


def test_the_report_is_kept_figure_by_figure_and_tells_what_failed(tmp_path: Path) -> None:
    report = Report.read(tmp_path)
    report.machine = {"device": "none"}
    report.add(Figure(1, "near", 0.01, most=0.02), Figure(1, "far", 0.5, least=0.6))
    report.add(Figure(2, "told", 3.0, "ms"), Figure(2, "never", least=1.0, missed="no time"))
    again = Report.read(tmp_path)
    assert again.figures == report.figures and again.machine == {"device": "none"}
    assert [figure.name for figure in again.failed()] == ["far", "never"]
    states = [each["state"] for each in json.loads((tmp_path / FILE).read_text(encoding="utf-8"))["figures"]]
    assert states == ["passed", "failed", "told", "not measured"]
    out = Console(record=True, width=100)
    again.show(out)
    shown = out.export_text()
    assert "at least 0.6" in shown and "no time" in shown
    again.begin(2)
    assert [figure.step for figure in Report.read(tmp_path).figures] == [1, 1]


@needs_torch
def test_the_made_models_hold_the_same_weights_in_both_forms(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    from server.models.engines.exllama.preflight import quantised
    from server.models.quantization.gptq import Rounded

    size = Size(128, 1, 2, 1, 256, 512, group=64)
    folder = make(tmp_path / "made", size, halves=True)
    packed, plain = (load_file(folder / form / "model-00002-of-00002.safetensors") for form in ("gptq", "fp16"))
    stem = "model.layers.0.mlp.down_proj"
    back = Rounded.of({part: packed[f"{stem}.{part}"] for part in ("qweight", "qzeros", "scales", "g_idx")}).weights()
    assert (back.half() == plain[f"{stem}.weight"]).all() and back.std() == pytest.approx(256**-0.5, rel=0.05)
    config = json.loads((folder / "gptq" / "config.json").read_text(encoding="utf-8"))
    found = quantised(folder / "gptq", config)
    assert (found.kind, found.bits, found.group, found.odd) == ("gptq", 4, 64, None)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [(["all"], "no CUDA device"), (["2", "--device", "cpu"], "step 2 goes on from step 1")],
)
def test_it_refuses_in_one_sentence(arguments: list[str], says: str, tmp_path: Path) -> None:
    told = os.environ | {"PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [ROOT / "scripts" / "gpu-check", *arguments, "--out", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        env=told,
        check=False,
    )
    assert done.returncode == 2 and says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


# ---- the checks themselves, on a processor --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    told = {"engine": "openvino", "source": str(made("random")), "data": str(tmp_path_factory.mktemp("data"))}
    ready = loaded(told, context=ROOM, cache_tokens=ROOM, parallel=8)
    yield ready
    ready.close()


@pytest.mark.parametrize("name", BEHAVIOURS)
def test_an_engine_that_behaves_meets_every_bar(name: str, engine: Engine) -> None:
    found = BEHAVIOURS[name](engine, 500)
    assert set(found) == set(FIGURES[name])
    for key, (what, least, most) in FIGURES[name].items():
        state = Figure(2, what, found[key], least=least, most=most).state
        assert state == ("told" if key == "first" else "passed"), (what, found[key])


class _Forgetful:
    """An engine that hears no cancelling, reads every prompt anew and knows no grammar."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def cancel(self, key: int) -> None:
        pass

    def submit(self, key: int, request: Generate) -> None:
        self._engine.submit(key, msgspec.structs.replace(request, grammar=None))

    def step(self) -> list[tuple[int, Event]]:
        told = self._engine.step()
        return [(k, msgspec.structs.replace(e, cached_tokens=0) if isinstance(e, Delta) else e) for k, e in told]

    def __getattr__(self, name: str) -> object:
        return getattr(self._engine, name)


def test_one_that_does_not_misses_them(engine: Engine) -> None:
    forgetful = cast(Engine, _Forgetful(engine))
    assert BEHAVIOURS["cancelled"](forgetful, 500)["late"] > 0
    assert BEHAVIOURS["shared_prefix"](forgetful, 500)["kept"] == 0
    assert BEHAVIOURS["grammar"](forgetful, 500)["valid"] < 1
    assert not conforms('{"name": "a", "count": -1}') and not conforms('{"name": "a", "count": true}')
    assert conforms('{"name": "a", "count": 1}') and not conforms("[]") and not conforms("{")


def test_what_is_found_is_said_at_once_and_a_task_that_hangs_leaves_the_others_time(tmp_path: Path) -> None:
    said = Console(record=True, width=200, file=io.StringIO())
    check = Check(tmp_path, "cpu", said)
    with pytest.raises(MeasurementFailed, match="it took more than 0 s"):
        check._run([sys.executable, "-c", "import signal; signal.pause()"], 0.2)
    check.report.add(Figure(1, "near", 0.01, most=0.02), Figure(1, "never", least=1.0, missed="no time"))
    shown = said.export_text()
    assert "near: 0.01 (passed)" in shown and "never: no time (not measured)" in shown


@needs_torch
def test_generated_tokens_are_judged_by_transformers(tmp_path: Path) -> None:
    folder = make(tmp_path / "made", Size(128, 1, 2, 1, 256, 512, group=64), halves=True) / "fp16"
    told = {"engine": "openvino", "source": str(folder), "data": str(tmp_path), "device": "cpu", "vocabulary": 512}
    found = measuring.generated({**told, "prompt": 20, "tokens": 6, "streams": 2, "keys": {"precision": "f32"}})
    assert [len(each) for each in found["answers"]] == [6, 6]
    assert measuring.judged({**told, **found}) == {"agreement": 1.0, "tokens": 12}
    wrong = [[(token + 1) % 512 for token in found["answers"][0]], found["answers"][1]]
    assert measuring.judged({**told, **found, "answers": wrong})["agreement"] < 1


@needs_torch
def test_attention_of_new_tokens_is_timed_beside_keys_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "_CALLS", 1)
    asked = {"device": "cpu", "heads": 4, "kv_heads": 2, "width": 32, "shapes": [(1, 300), (3, 255)]}
    found = measuring.kernel(asked)
    assert [(row["streams"], row["length"]) for row in found["rows"]] == [(1, 300), (3, 255)]
    for row in found["rows"]:
        assert row["torch"] > 0 and row["order"] > 0 and row["triton"] is None
        assert row["bytes"] == 2 * row["streams"] * (row["length"] + 1) * 2 * 32 * 4
        assert row["parts"]["torch"] and sum(row["parts"]["torch"].values()) <= 1.001
    from server.models.engines.exllama.attention import expect

    assert expect(0).rows == 0 and found["attention"] == "torch sdpa" and "missing" in found["objection"]


def test_a_check_that_fails_does_not_stop_those_after_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []

    def task(check: Check, name: str, told_: dict[str, object]) -> dict[str, object]:
        told.append(str(told_.get("behaviour", name)))
        if name == "behaviour" and told_["behaviour"] == "cancelled":
            raise MeasurementFailed("the GPU fell off the bus")
        if name == "behaviour" and told_["behaviour"] == "overlong":
            raise ZeroDivisionError("a fault of the check itself")
        if name == "behaviour":
            return {key: 1.0 for key in FIGURES[str(told_["behaviour"])]}
        if name == "bandwidth":
            raise MeasurementFailed("no memory")
        if name == "kernel":
            return {"rows": [], "attention": "none", "objection": "no GPU"}
        return {"rows": [{"streams": 1, "rate": 5.0, "first": 0.1}], "same": 1.0}

    monkeypatch.setattr(Check, "_task", task)
    monkeypatch.setattr(Check, "_model", lambda check, name, halves: tmp_path)
    first = Check(tmp_path, "cpu", Console(quiet=True))._first()
    assert [getattr(each, "func", each).__name__ for each in first] == ["_logits", "_generated"]
    Check(tmp_path, "cpu", Console(quiet=True)).step(2)
    assert told == ["bandwidth", "kernel", "speed", *BEHAVIOURS]
    report = Report.read(tmp_path)
    assert report.told == {"Triton kernel not taken": "no GPU"}
    missed = {figure.name: figure.missed for figure in report.failed() if figure.missed}
    assert [missed[what] for what, _, _ in FIGURES["cancelled"].values()] == ["the GPU fell off the bus"] * 3
    assert missed["the check behaviour"] == "a fault of the check itself"
    names = {figure.name: figure.value for figure in report.figures}
    assert names["auto cache, 1 stream: tokens a second"] == 5.0


def test_speed_on_a_gpu_is_told_beside_what_its_memory_allows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def task(check: Check, name: str, told: dict[str, Any]) -> dict[str, object]:
        if name == "bandwidth":
            return {"bytes_per_second": 4e12}
        if name == "kernel":
            assert (told["heads"], told["kv_heads"], told["width"]) == (32, 32, 128)
            rows = [{"streams": n, "length": length, "torch": 0.2, "order": 0.05} for n, length in told["shapes"]]
            parts = {"triton": 0.1, "bytes": 1e8, "parts": {"torch": {"gather": 0.7}, "triton": {"_attended": 1.0}}}
            return {"rows": [{**row, **parts} for row in rows], "attention": "torch sdpa", "objection": None}
        if name == "speed" and told.get("by_torch"):
            return {"rows": [{"streams": n, "rate": 200.0, "first": 0.01} for n in told["streams"]]}
        if name == "speed":
            rates = {1: 250.0, 4: 900.0, 16: 1900.0, 32: 3000.0}
            return {"rows": [{"streams": n, "rate": rates[n], "first": 0.01} for n in told["streams"]], "same": 1.0}
        raise MeasurementFailed("not asked for here")

    monkeypatch.setattr(Check, "_task", task)
    monkeypatch.setattr(Check, "_model", lambda check, name, halves: tmp_path)
    Check(tmp_path, "cuda", Console(quiet=True)).step(2)
    report = Report.read(tmp_path)
    found = {figure.name: figure for figure in report.figures}
    one = found["fp16 cache, 1 stream: share of the memory's limit"]
    assert one.value == pytest.approx(250 / limit(SEVEN, 4e12, 1, 192, "fp16")) and one.state == "failed"
    assert found["16 streams against one, tokens/s"].state == "failed"  # 7.6 times
    # 32 layers of 0.1 ms, in a step of 4 ms.
    share = found["fp16 cache, 1 stream: share of a step that our attention takes, if it is used"]
    assert share.value == pytest.approx(0.8)
    long = "attention of new tokens, 32 x 4096"
    assert found[f"{long}: torch, share of the memory bandwidth"].value == pytest.approx(0.125)
    assert found[f"{long}: triton, share of the memory bandwidth"].value == pytest.approx(0.25)
    gain = found[f"{long}: gain by the Triton kernel"]
    assert (gain.value, gain.least, gain.state) == (pytest.approx(2.0), 1.4, "passed")
    assert report.told["attention of new tokens, 1 x 192 by torch"] == "gather 70 %"
    assert found["tokens/s with the Triton kernel beside torch alone, 1 at once"].value == pytest.approx(1.25)
    assert found["tokens/s with the Triton kernel beside torch alone, 16 at once"].value == pytest.approx(9.5)
    assert "q4 cache, 32 streams: tokens a second" in found
