"""`scripts/gpu-check` where there is no GPU: its arithmetic, its report, its models, and how it refuses."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from bench.gpu.arithmetic import Size, agreement, limit, relative_error, same_tokens
from bench.gpu.making import SIZES, make
from bench.gpu.report import FILE, Figure, Report
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
