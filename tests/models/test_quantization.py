"""Quantising: types and their bits, GGUF files that engines serve, runs that are killed, and GPTQ's rounding."""

import hashlib
import json
import signal
import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType

from config.model import LocalModel
from server.models.engine import Engine, Generate, Sampling
from server.models.engines import create
from server.models.engines.paged.gguf_file import GgufFile
from server.models.engines.sampling import vocabulary
from server.models.header import Header
from server.models.quantization import evaluating, gguf_file, kinds, originals
from server.models.quantization.exllama import command, lacking, steps
from server.models.quantization.fault import QuantizeError
from server.models.quantization.ggml import Quantiser
from tests.making import made
from tests.making.oracle import needs_torch
from tests.models.engines.driving import finished, text
from tests.models.engines.exllama.processor import needs_exllamav2

ROOT = Path(__file__).parents[2]
SILENT = lambda *_: None  # noqa: E731
PROMPT = "The server answers the question of the client.\n"


# ---- types ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        (2.0, "q2_k"),
        (3.0, "q3_k"),
        (4.0, "q4_0"),
        (4.5, "q4_0"),
        (4.6, "q4_1"),
        (5.5, "q5_k"),
        (6.0, "q6_k"),
        (8.5, "q8_0"),
    ],
)
def test_bits_choose_the_smallest_type_with_at_least_as_many(asked: float, name: str) -> None:
    assert kinds.for_bits(asked).name == name


def test_more_bits_than_any_type_has_are_refused() -> None:
    with pytest.raises(QuantizeError, match=r"at most 8\.5 bits, as q8_0"):
        kinds.for_bits(9.0)


def test_four_bits_take_four_and_a_half_and_are_72_percent_smaller() -> None:
    assert kinds.named("q4_0").bits == 4.5
    assert round(100 * (1 - 4.5 / 16), 1) == 71.9


def test_the_head_has_six_bits_and_rows_that_do_not_fit_take_blocks_of_32() -> None:
    four = kinds.named("q4_k")
    assert kinds.stored(four, 512, head=False) is GGMLQuantizationType.Q4_K
    assert kinds.stored(four, 512, head=True) is GGMLQuantizationType.Q6_K
    assert kinds.stored(four, 320, head=True) is GGMLQuantizationType.Q8_0
    assert kinds.stored(four, 20, head=False) is GGMLQuantizationType.F16
    for name in kinds.TYPES:
        kind = kinds.named(name)
        found = kinds.stored(kind, 320, head=False)
        assert kinds.bits(found) >= kind.bits and (found is kind.ggml) == (320 % kinds.BLOCKS[kind.ggml][0] == 0)
    # As llama.cpp has it.
    assert kinds.stored(four, 320, head=False) is GGMLQuantizationType.Q5_0
    assert kinds.stored(kinds.named("q3_k"), 320, head=False) is GGMLQuantizationType.IQ4_NL


@pytest.mark.parametrize("name", ["q4_0", "q4_1", "q5_0", "q8_0"])
def test_llama_cpp_quantises_as_the_library_gguf_does(name: str) -> None:
    values = np.random.default_rng(1).standard_normal((7, 256)).astype(np.float32)
    kind = kinds.named(name).ggml
    quantiser = Quantiser()
    assert quantiser.by == "llama.cpp"
    assert np.array_equal(quantiser.rows(values, kind), gguf.quantize(values, kind))
    quantiser.close()


@pytest.mark.parametrize(
    ("name", "most"), [("q2_k", 0.35), ("q3_k", 0.19), ("q4_k", 0.085), ("q5_k", 0.045), ("q6_k", 0.025)]
)
def test_k_quants_stay_near_what_they_stand_for(name: str, most: float) -> None:
    values = np.random.default_rng(1).standard_normal((5, 512)).astype(np.float32)
    quantiser = Quantiser()
    kind = kinds.named(name).ggml
    back = gguf.dequantize(quantiser.rows(values, kind), kind)
    quantiser.close()
    assert np.sqrt(np.mean((back - values) ** 2)) < most


# ---- files ----------------------------------------------------------------------------------------------------------


def quantised(source: Path, name: str, folder: Path) -> Path:
    file = folder / f"{source.stem}-{name}.gguf"
    gguf_file.write(originals.read(source), kinds.named(name), file, SILENT)
    return file


def engine_of(path: Path, room: Path, engine: str) -> Engine:
    keys: dict[str, object] = {"engine": engine, "source": str(path), "context": 256}
    ready, _ = create(LocalModel.model_validate(keys, context={}), room)
    ready.load(SILENT)
    return ready


def greedy(engine: Engine) -> str:
    request = Generate(prompt=PROMPT, max_tokens=12, sampling=Sampling(temperature=0.0))
    return text(finished(engine, request)[0])


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3"])
def test_a_folder_becomes_a_file_with_the_same_weights_and_tokenizer(family: str, tmp_path: Path) -> None:
    folder = made("random", family=family, format="safetensors", rope_scaling=family == "llama")
    file = quantised(folder, "q8_0", tmp_path)
    # What our own writer of test models makes of the same weights is the other way to the same file.
    other = GgufFile(made("random", family=family, quant="q8_0", rope_scaling=family == "llama"), keep_floats=True)
    found = GgufFile(file, keep_floats=True)
    assert np.allclose(found.shape.frequencies, other.shape.frequencies, rtol=1e-6)
    assert (found.shape, found.family) == (other.shape, other.family)
    for name, layer in (("embedding", None), ("q", 0), ("k", 1), ("down", 1)):
        one, two = found.matrix(name, layer), other.matrix(name, layer)
        assert np.array_equal(one.values, two.values) and np.array_equal(one.scales, two.scales)  # type: ignore[union-attr]
    size = found.shape.vocabulary
    read, own = vocabulary.from_gguf(Header.read(file), size), vocabulary.from_folder(folder, size)
    assert (read.ends, read.template, read.begins) == (own.ends, own.template, own.begins)


@pytest.mark.parametrize("engine", ["openvino", "llamacpp"])
def test_both_engines_say_with_8_bits_what_the_original_says(engine: str, tmp_path: Path) -> None:
    folder = made("automaton", format="safetensors")
    ready = engine_of(quantised(folder, "q8_0", tmp_path), tmp_path, engine)
    original = engine_of(folder, tmp_path, "openvino")
    assert greedy(ready) == greedy(original) != ""
    ready.close()
    original.close()


def test_a_gguf_file_of_more_bits_becomes_one_of_fewer(tmp_path: Path) -> None:
    source = made("random", quant="f32")
    file = quantised(source, "q4_k", tmp_path)
    before, after = Header.read(source), Header.read(file)
    assert {name: each.size for name, each in before.tensors.items()} == {
        name: each.size for name, each in after.tensors.items()
    }
    assert before.field("tokenizer.ggml.tokens") == after.field("tokenizer.ggml.tokens")
    assert after.field("general.file_type") == gguf.LlamaFileType.MOSTLY_Q4_K_S
    kept = {each.kind for name, each in after.tensors.items() if "norm" in name}
    assert kept == {GGMLQuantizationType.F32}
    with pytest.raises(QuantizeError, match=r"4\.[5-9]\d bits already, and q4_0 has 4.5"):
        quantised(file, "q4_0", tmp_path)


_KILLED = """
import os, signal, sys
from pathlib import Path
from server.models.quantization import gguf_file, kinds, originals
seen = []
def told(what, done, whole):
    seen.append(what)
    if len(seen) == 9:
        os.kill(os.getpid(), signal.SIGKILL)
gguf_file.write(originals.read(Path(sys.argv[1])), kinds.named("q4_0"), Path(sys.argv[2]), told)
"""


def test_a_killed_run_is_gone_on_with_and_makes_the_same_file(tmp_path: Path) -> None:
    source, file = made("random", format="safetensors"), tmp_path / "model.gguf"
    done = subprocess.run(
        [sys.executable, "-c", _KILLED, str(source), str(file)], cwd=ROOT, timeout=120, check=False, capture_output=True
    )
    assert done.returncode == -signal.SIGKILL and not file.exists()
    work = tmp_path / ".model.gguf.quantizing"
    journal = work / "journal.jsonl"
    finished_before = journal.read_text(encoding="utf-8").splitlines()
    assert len(finished_before) == 8
    # One tensor is damaged on the disk, and the last line was cut: both are made again.
    entry = Header.read(work / "weights.part").tensors[json.loads(finished_before[2])["tensor"]]
    with (work / "weights.part").open("r+b") as part:
        part.seek(entry.start)
        part.write(b"\xff" * 8)
    journal.write_text("\n".join(finished_before)[:-20], encoding="utf-8")
    written = gguf_file.write(originals.read(source), kinds.named("q4_0"), file, SILENT)
    assert written.reused == 6 and not work.exists()
    assert written.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    whole = gguf_file.write(originals.read(source), kinds.named("q4_0"), tmp_path / "whole.gguf", SILENT)
    assert (whole.reused, whole.sha256) == (0, written.sha256)


def test_what_is_left_of_another_plan_is_not_gone_on_with(tmp_path: Path) -> None:
    source, file = made("random", format="safetensors"), tmp_path / "model.gguf"
    with pytest.raises(KeyboardInterrupt):
        gguf_file.write(originals.read(source), kinds.named("q4_0"), file, _interrupting(after=5))
    assert gguf_file.write(originals.read(source), kinds.named("q4_1"), file, SILENT).reused == 0


def _interrupting(after: int) -> object:
    seen: list[str] = []

    def told(what: str, done: int, whole: int) -> None:
        seen.append(what)
        if len(seen) > after:
            raise KeyboardInterrupt

    return told


# ---- what it cost ---------------------------------------------------------------------------------------------------


def test_a_text_tells_perplexity_and_the_likeliest_tokens(tmp_path: Path) -> None:
    source = made("random", family="qwen3", format="safetensors")
    data = evaluating.Data("words", PROMPT * 30)
    room = tmp_path / "room"
    before = evaluating.score(source, data, room, SILENT, count=1_000_000)
    eight = evaluating.score(quantised(source, "q8_0", tmp_path), data, room, SILENT, count=1_000_000)
    four = evaluating.score(quantised(source, "q4_0", tmp_path), data, room, SILENT, count=1_000_000)
    assert before.exact and before.tokens == len(before.right) > 100
    assert abs(eight.loss - before.loss) < abs(four.loss - before.loss)
    assert 1.0 > evaluating.agreement(before, eight) > evaluating.agreement(before, four) > 0.1
    assert evaluating.agreement(before, before) == 1.0


@pytest.mark.parametrize(
    ("line", "says"),
    [("{", "line 2"), ('{"prompt": "a"}', "line 2: is no object with the texts"), ('["a"]', "line 2")],
)
def test_a_broken_question_is_named_by_its_line(line: str, says: str, tmp_path: Path) -> None:
    file = tmp_path / "asked.jsonl"
    file.write_text(f'{{"prompt": "a", "answer": "b"}}\n{line}\n', encoding="utf-8")
    with pytest.raises(QuantizeError, match=says):
        evaluating.read(file)


# ---- the converters of the CUDA engines -----------------------------------------------------------------------------


def test_progress_is_read_from_the_lines_of_both_converters() -> None:
    lines = [
        " -- Quantizing...\n",
        '[STATUS]{"stage": "Measuring", "completion": 0.25}[/STATUS]\n',
        " -- Quantized: model.embed_tokens          no_weights  [0.10 s]\n",
        " -- Quantized: model.layers.1              bpw:  4.00  rfn: 0.004  [3.00 s]\n",
    ]
    assert [(step.stage, step.percent) for step in steps(lines, 4)] == [("Measuring", 25), ("Quantizing", 50)]


def test_exl3_goes_on_with_a_job_that_was_begun(tmp_path: Path) -> None:
    job, into = tmp_path / "job", tmp_path / "made"
    assert "-r" not in command("exl3", tmp_path, job, into, 4.0)
    (job / "ckpt").mkdir(parents=True)
    (job / "ckpt" / "job.json").touch()
    assert command("exl3", tmp_path, job, into, 4.0)[-5:] == ["-w", str(job), "-r", "-hb", "6"]


@needs_exllamav2
def test_exllamav2_converts_without_the_packages_that_read_parquet_files() -> None:
    """`scripts/setup cuda` leaves pandas and fastparquet out. The converter's modules are read; nothing is computed."""
    run = command("exl2", Path("in"), Path("job"), Path("made"), 4.0)
    asked = [run[run.index("-c") + 1], run[run.index("-c") + 2]]
    code = "import sys; from tests.models.engines.exllama.processor import prepared; prepared(); exec(sys.argv.pop(1))"
    done = subprocess.run(
        [sys.executable, "-c", code, *asked, "-h"],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert done.returncode == 0 and "Convert model to ExLlamaV2" in done.stdout, done.stderr[-2000:]


def test_what_a_machine_lacks_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # no nvidia-smi
    folder = made("random", format="safetensors")
    told = lacking("exl2", folder, 4.0, tmp_path)
    assert told is not None and "made by exllamav2, and that cannot be used: " in told
    assert "no CUDA device" in told or "not installed" in told
    assert lacking("exl2", folder, 1.5, tmp_path) == "--bits 1.5: exl2 is made with 2 to 8 bits"
    assert "not of a GGUF file" in str(lacking("exl3", made("random"), 4.0, tmp_path))


# ---- GPTQ -----------------------------------------------------------------------------------------------------------


@needs_torch
@pytest.mark.parametrize("act_order", [True, False])
def test_gptq_keeps_a_layer_nearer_than_rounding_does(act_order: bool) -> None:
    import torch

    from server.models.quantization.gptq import Rounded, few_threads, rounded

    torch.manual_seed(3)
    weight = torch.randn(64, 128) / 128**0.5
    # Inputs of real layers lie near few directions; rounding each weight for itself knows nothing of that.
    inputs = torch.randn(400, 16) @ torch.randn(16, 128) + 0.1 * torch.randn(400, 128)
    hessian = inputs.t() @ inputs / len(inputs)
    with few_threads(128):
        fitted = rounded(weight.clone(), hessian.clone(), 64, act_order=act_order)
        nearest = rounded(weight.clone(), torch.eye(128), 64, act_order=False)
    wanted = inputs @ weight.t()

    def error(found: Rounded) -> float:
        return float((inputs @ found.weights().t() - wanted).norm() / wanted.norm())

    assert error(fitted) < 0.5 * error(nearest)
    assert float((nearest.weights() - weight).abs().max()) < 0.1
    again = Rounded.of(fitted.packed())
    for name in ("values", "scales", "zeros", "group"):
        assert torch.equal(getattr(again, name), getattr(fitted, name)), name
    assert fitted.packed()["qweight"].shape == (16, 64) and fitted.packed()["qzeros"].shape == (2, 8)
    assert int(fitted.zeros.min()) >= 1
    if not act_order:
        assert fitted.group.tolist() == [0] * 64 + [1] * 64


def _windows(folder: Path) -> list[list[int]]:
    ids = vocabulary.from_folder(folder, 2048).encode(PROMPT * 6, parse_special=False)
    return [ids[:40], ids[40:70]]


@needs_torch
@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_a_layer_in_parts_reads_and_makes_what_it_does_as_a_whole(family: str) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    from server.models.quantization import gptq_folder

    folder = made("random", family=family, format="safetensors")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    layer = model.model.layers[0]
    with torch.inference_mode():
        calls = gptq_folder._first_inputs(model, _windows(folder), SILENT)
        read: dict[str, list[torch.Tensor]] = {}
        hooks = [
            gptq_folder._linear(layer, name).register_forward_pre_hook(
                lambda _, given, name=name: read.setdefault(name, []).append(given[0][0])
            )
            for name in ("q", "o", "gate", "down")
        ]
        whole = [layer(hidden, **rest) for hidden, rest in calls]
        for hook in hooks:
            hook.remove()
        pass_ = gptq_folder._Pass(layer, calls, "cpu")
        for name, rows in read.items():
            each = torch.cat(rows)
            assert torch.allclose(pass_.hessian(name), each.T @ each / len(each), rtol=1e-4, atol=1e-6), name
        pass_.through()
    assert all(torch.allclose(made, one, atol=1e-5) for (made, _), one in zip(calls, whole, strict=True))


@needs_torch
def test_a_cut_gptq_run_goes_on_after_the_last_whole_layer(tmp_path: Path) -> None:
    from server.models.quantization import gptq_folder

    folder = made("random", family="qwen3", format="safetensors")
    steps: list[str] = []

    def cut(step: str, done: int, whole: int) -> None:
        if step.startswith("fitting layer 1"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        gptq_folder.write(folder, tmp_path / "cut", PROMPT * 9, cut, act_order=True)
    assert not (tmp_path / "cut").exists()
    told = gptq_folder.write(folder, tmp_path / "cut", PROMPT * 9, lambda step, *_: steps.append(step), act_order=True)
    assert not any(step.startswith("fitting layer 0") for step in steps)
    assert told == gptq_folder.write(folder, tmp_path / "whole", PROMPT * 9, SILENT, act_order=True)
    with pytest.raises(QuantizeError, match=r"--group 100: .* is no whole number of them; 128 fits"):
        gptq_folder.write(folder, tmp_path / "other", PROMPT, SILENT, group=100, act_order=True)
    told = gptq_folder.write(folder, tmp_path / "fine", PROMPT * 9, SILENT, group=32, act_order=True)
    said = json.loads((tmp_path / "fine" / "config.json").read_text(encoding="utf-8"))
    assert said["quantization_config"]["group_size"] == 32
