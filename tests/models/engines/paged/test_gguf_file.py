"""GGUF files as weights: what is read is what was written, and what is broken is refused by name."""

import random
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind
from numpy.typing import NDArray

from server.models.engines.paged.gguf_file import GgufFile
from server.models.engines.paged.weights import Float, Int8, Matrix, UInt4, tensors
from server.models.header import WeightsError
from tests.models.engines.paged.writing import write_gguf


def plain(matrix: Matrix) -> NDArray[np.float32]:
    """The floats that a matrix stands for."""
    match matrix:
        case Float(values):
            return values
        case Int8(values, scales):
            floats = values.astype(np.float32) * scales.astype(np.float32)
        case UInt4(packed, scales):
            pairs = np.stack([packed & 15, packed >> 4], -1).reshape(*packed.shape[:2], 32)
            floats = (pairs.astype(np.float32) - 8) * scales.astype(np.float32)
    return floats.reshape(len(floats), -1)


def everything(path: Path) -> None:
    """Read all that a graph would."""
    file = GgufFile(path)
    for tensor in tensors(file.shape):
        if file.has(tensor.name, tensor.layer):
            if len(tensor.size) == 2:
                file.matrix(tensor.name, tensor.layer)
            else:
                file.vector(tensor.name, tensor.layer)


@pytest.mark.parametrize(("kind", "held"), [(Kind.Q8_0, Int8), (Kind.Q4_0, UInt4)])
def test_eight_and_four_bit_matrices_are_kept_exactly(tmp_path: Path, kind: Kind, held: type) -> None:
    drawn = np.random.default_rng(1).normal(0, 1, (96, 64)).astype(np.float32)
    path = write_gguf(tmp_path / "m.gguf", kind=kind, tensors={"blk.0.ffn_gate": drawn})
    found = GgufFile(path).matrix("gate", 0)
    assert isinstance(found, held)
    np.testing.assert_array_equal(plain(found), gguf.dequantize(gguf.quantize(drawn, kind), kind))


@pytest.mark.parametrize("kind", [Kind.Q4_1, Kind.Q5_0, Kind.Q5_1, Kind.F16, Kind.BF16, Kind.F32])
def test_other_types_become_int8_within_half_a_step(tmp_path: Path, kind: Kind) -> None:
    drawn = np.random.default_rng(1).normal(0, 1, (96, 64)).astype(np.float32)
    path = write_gguf(tmp_path / "m.gguf", kind=kind, tensors={"blk.0.ffn_gate": drawn})
    found = GgufFile(path).matrix("gate", 0)
    assert isinstance(found, Int8)
    written = gguf.dequantize(gguf.quantize(drawn, kind), kind).reshape(96, 2, 32)
    steps = np.abs(written).max(-1, keepdims=True) / 127
    # Half a step of rounding, and the scale itself is rounded to half precision: 127 of its 2048ths.
    assert (np.abs(plain(found).reshape(96, 2, 32) - written) <= 0.57 * steps).all()


@pytest.mark.parametrize("kind", [Kind.Q4_K, Kind.Q6_K])
def test_k_quants_are_read_block_by_block(tmp_path: Path, kind: Kind) -> None:
    # gguf writes no K-quants: blocks of random bytes with sane scales, on a model 256 wide.
    each, octets = gguf.GGML_QUANT_SIZES[kind]
    blocks = np.random.default_rng(2).integers(0, 256, (3, octets)).astype(np.uint8)
    half = np.array([0.01], np.float16).view(np.uint8)
    if kind == Kind.Q4_K:
        blocks[:, :2] = blocks[:, 2:4] = half
    else:
        blocks[:, -2:] = half
    writer = gguf.GGUFWriter(path := tmp_path / "m.gguf", "llama")
    for key in ("embedding_length", "feed_forward_length"):
        writer.add_uint32(f"llama.{key}", each)
    writer.add_uint32("llama.block_count", 0)
    writer.add_uint32("llama.attention.head_count", 4)
    writer.add_float32("llama.attention.layer_norm_rms_epsilon", 1e-5)
    writer.add_tensor("token_embd.weight", blocks, raw_dtype=kind)
    writer.add_tensor("output_norm.weight", np.ones(each, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = GgufFile(path, keep_floats=True).matrix("embedding")
    assert isinstance(found, Float)
    np.testing.assert_array_equal(found.values, gguf.dequantize(blocks, kind))


def test_stored_rope_factors_slow_each_frequency(tmp_path: Path) -> None:
    factors = np.linspace(1, 8, 16).astype(np.float32)
    stretched = GgufFile(write_gguf(tmp_path / "s.gguf", tensors={"rope_freqs": factors})).shape.frequencies
    straight = GgufFile(write_gguf(tmp_path / "m.gguf")).shape.frequencies
    np.testing.assert_allclose(stretched * factors, straight, rtol=1e-6)


def test_linear_rope_scaling_divides_the_frequencies(tmp_path: Path) -> None:
    fields = {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0}
    stretched = GgufFile(write_gguf(tmp_path / "s.gguf", fields=fields)).shape.frequencies
    straight = GgufFile(write_gguf(tmp_path / "m.gguf")).shape.frequencies
    np.testing.assert_allclose(stretched * 4, straight, rtol=1e-6)


# ---- what is refused ------------------------------------------------------------------------------------------------

_WIDE = np.zeros((96, 32), np.float32)


@pytest.mark.parametrize(
    ("broken", "named"),
    [
        ({"architecture": "gpt2"}, "architecture gpt2"),
        ({"fields": {"llama.rope.scaling.type": "yarn"}}, "rope scaling of type yarn"),
        ({"fields": {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 0.0}}, "factor is 0.0"),
        ({"fields": {"llama.block_count": None}}, "llama.block_count is missing"),
        ({"fields": {"llama.block_count": "one"}}, "llama.block_count should be a whole number, but is 'one'"),
        ({"fields": {"llama.block_count": 2}}, "the tensor blk.1.attn_q.weight is missing"),
        ({"fields": {"llama.block_count": 2**32 - 1}}, "the tensor blk.1.attn_q.weight is missing"),
        ({"fields": {"llama.attention.head_count": 0}}, "heads is 0"),
        ({"fields": {"llama.attention.head_count_kv": 3}}, "2 heads cannot share 3"),
        ({"fields": {"llama.attention.layer_norm_rms_epsilon": float("nan")}}, "layer_norm_rms_epsilon"),
        ({"fields": {"llama.rope.dimension_count": 8}}, "llama.rope.dimension_count is 8"),
        ({"fields": {"llama.expert_count": 8}}, "llama.expert_count"),
        ({"tensors": {"token_embd": None}}, "the tensor token_embd.weight is missing"),
        ({"tensors": {"blk.0.ffn_up": None}}, "the tensor blk.0.ffn_up.weight is missing"),
        ({"tensors": {"blk.0.ffn_up": _WIDE}}, "the tensor blk.0.ffn_up.weight is 96 x 32, but the .* 96 x 64"),
        ({"tensors": {"output": _WIDE}}, "the tensor output.weight is 96 x 32, but the .* 128 x 64"),
        ({"tensors": {"rope_freqs": np.ones(5, np.float32)}}, "rope_freqs.weight should be 16 numbers"),
        ({"tensors": {"rope_freqs": np.zeros(16, np.float32)}}, "rope_freqs.weight holds values"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_by_name(tmp_path: Path, broken: dict[str, Any], named: str) -> None:
    path = write_gguf(tmp_path / "m.gguf", **broken)
    with pytest.raises(WeightsError, match=f"m.gguf: .*{named}"):
        GgufFile(path)


def test_a_type_that_gguf_cannot_unpack_is_refused_with_the_tensor(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", tensors={"blk.0.ffn_gate": np.zeros((96, 64), np.float32)})
    data = bytearray(path.read_bytes())
    at = data.index(b"blk.0.ffn_gate.weight") + len(b"blk.0.ffn_gate.weight") + 4 + 2 * 8
    data[at : at + 4] = int(Kind.Q8_1).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(WeightsError, match=r"blk.0.ffn_gate.weight is of type Q8_1"):
        GgufFile(path)


def test_values_that_are_not_numbers_are_refused_with_the_tensor(tmp_path: Path) -> None:
    drawn = np.zeros((96, 64), np.float32)
    drawn[3, 5] = np.nan
    file = GgufFile(write_gguf(tmp_path / "m.gguf", tensors={"blk.0.ffn_gate": drawn}))
    with pytest.raises(WeightsError, match=r"blk.0.ffn_gate.weight holds values that are not numbers"):
        file.matrix("gate", 0)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"gone.gguf: No such file"):
        GgufFile(tmp_path / "gone.gguf")


@pytest.mark.parametrize("kind", [Kind.F32, Kind.Q4_0])
def test_a_file_cut_anywhere_is_refused(tmp_path: Path, kind: Kind) -> None:
    data = write_gguf(tmp_path / "m.gguf", kind=kind).read_bytes()
    cut = tmp_path / "cut.gguf"
    header = data.index(b"output_norm.weight") + 64
    # Padding follows the last tensor, so that the very end may go unseen.
    for length in [*range(0, header, 7), *range(header, len(data) - 32, 997)]:
        cut.write_bytes(data[:length])
        with pytest.raises(WeightsError, match=r"cut.gguf"):
            GgufFile(cut)


def test_flipped_header_bytes_are_read_or_refused_but_nothing_else(tmp_path: Path) -> None:
    data = write_gguf(tmp_path / "m.gguf", kind=Kind.Q8_0).read_bytes()
    header = data.index(b"output_norm.weight") + 64
    bent = tmp_path / "bent.gguf"
    draw = random.Random(0)
    refused = 0
    for at in range(header):
        flipped = draw.choice((0xFF, 0x80, 1 << draw.randrange(8)))
        bent.write_bytes(data[:at] + bytes([data[at] ^ flipped]) + data[at + 1 :])
        try:
            everything(bent)
        except WeightsError as error:
            refused += 1
            assert "bent.gguf" in str(error)  # noqa: PT017: most of them raise, but not all
    assert refused > header // 2
