"""Quantising that is fitted to a text: the decoder in numpy, the codes in ggml's blocks, and what fitting gains."""

from pathlib import Path

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFWriter

from server.models.header import Header, WeightsError
from server.models.quantization import calibration, evaluating, gguf_file, kinds, originals
from server.models.quantization.calibration import STAGES, Network
from server.models.quantization.codes import layout
from server.models.quantization.fault import QuantizeError
from server.models.quantization.fitting import Seen, rounded
from server.models.quantization.ggml import Quantiser
from tests.making import made

SILENT = lambda *_: None  # noqa: E731
TEXT = "The server answers the question of the client, and the client asks again.\n" * 20
FITTED = [GGMLQuantizationType[name] for name in ("Q4_0", "Q4_1", "IQ4_NL", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K")]


# ---- the decoder ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "form"), [("llama", "gguf"), ("mistral", "safetensors"), ("qwen2", "safetensors"), ("qwen3", "gguf")]
)
def test_the_decoder_says_what_the_engine_says(family: str, form: str, tmp_path: Path) -> None:
    scaled = {"rope_scaling": True} if family == "llama" else {}
    source = made("random", family=family, format=form, **scaled, **({"quant": "f32"} if form == "gguf" else {}))
    original = originals.read(source)
    text = calibration.read(original, TEXT)
    parts = {part.name: part for part in original.parts}
    network = Network(
        text.shape,
        lambda name: original.whole(parts[name]) if name in parts else None,
        neighbours=original.architecture == "llama",
    )
    embedding = original.whole(parts["token_embd.weight"])
    ids = [token for window in text.windows for token in window]
    states = [embedding[ids]]
    for number in range(text.shape.layers):
        layer = network.layer(number)
        assert [stage for stage, _ in network.stages(layer, states)] == list(STAGES)
    last = states[0] / np.sqrt(np.mean(np.square(states[0]), -1, keepdims=True) + text.shape.eps)
    head = original.whole(parts["output.weight"]) if "output.weight" in parts else embedding
    logits = (last * original.whole(parts["output_norm.weight"])) @ head.T
    told = logits - np.logaddexp.reduce(logits, -1, keepdims=True)
    loss = -told[np.arange(len(ids) - 1), ids[1:]].mean()
    # One window, with the token that a text begins with in front of it, if the model has one.
    found = evaluating.score(source, evaluating.Data("text", TEXT), tmp_path, SILENT, count=1_000_000)
    assert found.exact and len(ids) < evaluating.WINDOW
    assert loss == pytest.approx(found.loss, rel=2e-3)
    first = found.likeliest[-50:]
    words = original.vocabulary(text.shape.vocabulary)
    assert [words.bytes_of(int(token)) for token in told[-51:-1].argmax(-1)] == first


# ---- codes and rounding ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FITTED, ids=lambda kind: kind.name)
def test_codes_are_put_where_gguf_reads_them(kind: GGMLQuantizationType) -> None:
    placed = layout(kind)
    assert placed is not None
    random = np.random.default_rng(0)
    weights = random.standard_normal((6, 512)).astype(np.float32)
    quantiser = Quantiser(1)
    blocks = quantiser.rows(weights, kind, np.ones(512, np.float32))
    quantiser.close()
    scale, offset = placed.grid(blocks)
    codes = random.integers(0, len(placed.levels), weights.shape).astype(np.uint8)
    read = gguf.dequantize(placed.with_codes(blocks, codes), kind)
    assert np.allclose(read, placed.levels[codes] * scale + offset, atol=1e-6)
    again = placed.nearest((read - offset) / np.where(scale == 0, 1, scale))
    assert (again == codes)[scale != 0].all()


@pytest.mark.parametrize(
    ("name", "gain"), [("q4_0", 0.4), ("q4_1", 0.4), ("iq4_nl", 0.4), ("q4_k", 0.4), ("q5_k", 0.5), ("q3_k", 0.95)]
)
def test_fitting_keeps_what_a_matrix_makes_of_other_inputs(name: str, gain: float) -> None:
    random = np.random.default_rng(1)
    weights = (random.standard_normal((64, 256)) / 16).astype(np.float32)
    # Inputs of real layers lie near few directions, and some are far larger than others.
    mixed = random.standard_normal((24, 256)) * np.exp(random.standard_normal(256))
    inputs = (random.standard_normal((1200, 24)) @ mixed + 0.1 * random.standard_normal((1200, 256))).astype(np.float32)
    fitted_to, others = inputs[:800], inputs[800:]
    kind = kinds.named(name).ggml
    quantiser = Quantiser(1)

    def error(blocks: np.ndarray) -> float:
        return float(np.linalg.norm(others @ (gguf.dequantize(blocks, kind) - weights).T))

    plain = error(quantiser.rows(weights, kind))
    before = weights.copy()
    assert error(rounded(weights, kind, Seen([fitted_to[:300], fitted_to[300:]]), quantiser)) < gain * plain
    assert np.array_equal(weights, before)
    quantiser.close()


def test_inputs_that_are_never_there_and_inputs_that_are_no_numbers() -> None:
    weights = np.random.default_rng(2).standard_normal((8, 64)).astype(np.float32)
    quantiser = Quantiser(1)
    inputs = np.zeros((10, 64), np.float32)
    blocks = rounded(weights, GGMLQuantizationType.Q4_0, Seen([inputs]), quantiser)
    assert np.abs(gguf.dequantize(blocks, GGMLQuantizationType.Q4_0) - weights).max() < 0.5
    inputs[3, 3] = np.nan
    with pytest.raises(QuantizeError, match="no numbers"):
        Seen([inputs])
    quantiser.close()


# ---- files ----------------------------------------------------------------------------------------------------------


def test_a_fitted_file_is_nearer_to_its_original(tmp_path: Path) -> None:
    source = made("random", family="qwen3", format="safetensors")
    data = evaluating.Data("words", TEXT)
    text = calibration.read(originals.read(source), TEXT)
    scores = [evaluating.score(source, data, tmp_path / "room", SILENT, count=1_000_000)]
    for name, fitted in (("plain", None), ("fitted", text)):
        file = tmp_path / f"{name}.gguf"
        gguf_file.write(originals.read(source), kinds.named("q4_0"), file, SILENT, fitted)
        scores.append(evaluating.score(file, data, tmp_path / "room", SILENT, count=1_000_000))
    before, plain, fitted_score = scores
    assert evaluating.agreement(before, fitted_score) > evaluating.agreement(before, plain) + 0.05
    assert abs(fitted_score.loss - before.loss) < abs(plain.loss - before.loss)


def test_a_cut_fitted_run_is_gone_on_with_and_makes_the_same_file(tmp_path: Path) -> None:
    source = made("random", format="safetensors")
    original = originals.read(source)
    text = calibration.read(original, TEXT)
    kind = kinds.named("q4_k")
    whole = gguf_file.write(original, kind, tmp_path / "whole.gguf", SILENT, text)
    seen: list[str] = []

    def cutting(what: str, done: int, of: int) -> None:
        seen.append(what)
        if what == "quantising blk.1.attn_v.weight":  # in the middle of a layer, and of a stage
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        gguf_file.write(original, kind, tmp_path / "cut.gguf", cutting, text)
    again = gguf_file.write(original, kind, tmp_path / "cut.gguf", SILENT, text)
    assert (again.reused, again.sha256) == (len(seen) - 1, whole.sha256)
    # Another text, or none, is another plan.
    with pytest.raises(KeyboardInterrupt):
        gguf_file.write(original, kind, tmp_path / "cut.gguf", cutting, text)
    assert gguf_file.write(original, kind, tmp_path / "cut.gguf", SILENT).reused == 0


def test_a_model_that_is_not_computed_here_is_not_fitted(tmp_path: Path) -> None:
    file = tmp_path / "other.gguf"
    writer = GGUFWriter(file, "mamba")
    writer.add_tensor("blk.0.ssm_in.weight", np.ones((32, 64), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    original = originals.read(file)
    with pytest.raises(WeightsError, match="mamba is not one of llama"):
        calibration.read(original, TEXT)
    assert gguf_file.write(original, kinds.named("q4_0"), tmp_path / "small.gguf", SILENT).kinds == {"q4_0": 2048}
    assert Header.read(tmp_path / "small.gguf").architecture == "mamba"


def test_an_empty_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(QuantizeError, match="the text is empty"):
        calibration.read(originals.read(made("random")), "")
