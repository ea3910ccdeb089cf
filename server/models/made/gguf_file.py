"""Writes a model as one GGUF file, tensor by tensor, as llama.cpp's converter would have it.

Format: github.com/ggml-org/ggml, docs/gguf.md. Names and metadata: llama.cpp, convert_hf_to_gguf.py.
"""

from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType, LlamaFileType, TokenType
from numpy.typing import NDArray

from server.models.made.shapes import Llama3Rope, Shape, Tensor, tensors
from server.models.made.vocabulary import ENDOFTEXT, IM_END, SPECIAL, Vocabulary
from server.models.made.weights import Floats, Weights

_FILE_TYPES = {
    "f32": LlamaFileType.ALL_F32,
    "f16": LlamaFileType.MOSTLY_F16,
    "bf16": LlamaFileType.MOSTLY_BF16,
    "q8_0": LlamaFileType.MOSTLY_Q8_0,
    "q4_0": LlamaFileType.MOSTLY_Q4_0,
}
QUANTS = tuple(_FILE_TYPES)


def write_gguf(
    path: Path, name: str, quant: str, shape: Shape, vocabulary: Vocabulary, weights: Weights, template: str
) -> None:
    """Write the file; matrices are of type `quant`, vectors always float32."""
    kind = GGMLQuantizationType[quant.upper()]
    writer = gguf.GGUFWriter(path, shape.architecture)
    writer.add_name(name)
    writer.add_file_type(_FILE_TYPES[quant])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    _add_shape(writer, shape)
    _add_vocabulary(writer, shape, vocabulary)
    writer.add_chat_template(template)
    if shape.rope:
        writer.add_tensor_info("rope_freqs.weight", (shape.head_dim // 2,), np.dtype(np.float32), shape.head_dim * 2)
    for tensor in tensors(shape):
        stored = kind if len(tensor.shape) == 2 else GGMLQuantizationType.F32
        block, size = gguf.GGML_QUANT_SIZES[stored]
        count = int(np.prod(tensor.shape))
        writer.add_tensor_info(tensor.gguf, tensor.shape, np.dtype(np.float32), count // block * size, stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    if shape.rope:
        writer.write_tensor_data(rope_factors(shape, shape.rope))
    for tensor in tensors(shape):
        writer.write_tensor_data(_stored(tensor, shape, weights, kind))
    writer.close()


def interleave(rows: Floats, heads: int) -> Floats:
    """Rows of q or k from halves, as Hugging Face rotates them, to the pairs GGUF's llama rotates."""
    halves = rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(rows.shape))


def rope_factors(shape: Shape, rope: Llama3Rope) -> Floats:
    """What each of the head_dim / 2 frequencies is divided by: short waves by 1, long ones by `factor`."""
    frequencies = shape.theta ** -(np.arange(0, shape.head_dim, 2) / shape.head_dim)
    turns = rope.original_context * frequencies / (2 * np.pi)
    short = np.clip((turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor), 0, 1)
    factors: Floats = (1 / (short + (1 - short) / rope.factor)).astype(np.float32)
    return factors


def _add_shape(writer: gguf.GGUFWriter, shape: Shape) -> None:
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.hidden)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.ffn)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(shape.head_dim)
    writer.add_value_length(shape.head_dim)
    writer.add_layer_norm_rms_eps(shape.epsilon)
    writer.add_rope_freq_base(shape.theta)
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_vocab_size(shape.vocabulary)
    if shape.window:
        writer.add_sliding_window(shape.window)


def _add_vocabulary(writer: gguf.GGUFWriter, shape: Shape, vocabulary: Vocabulary) -> None:
    used = len(vocabulary.tokens)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.padded(shape.vocabulary))
    writer.add_token_types(
        [TokenType.NORMAL] * vocabulary.special
        + [TokenType.CONTROL] * len(SPECIAL)
        + [TokenType.UNUSED] * (shape.vocabulary - used)
    )
    writer.add_token_merges([f"{left} {right}" for left, right in vocabulary.merges])
    writer.add_bos_token_id(vocabulary.id(ENDOFTEXT))
    writer.add_eos_token_id(vocabulary.id(IM_END))
    writer.add_pad_token_id(vocabulary.id(ENDOFTEXT))
    writer.add_add_bos_token(False)


def _stored(tensor: Tensor, shape: Shape, weights: Weights, kind: GGMLQuantizationType) -> Floats | NDArray[np.uint8]:
    if len(tensor.shape) == 1:
        return weights.values(tensor)
    if (blocks := weights.blocks(tensor, kind)) is not None:
        return blocks  # random rows: their order says nothing
    values = weights.values(tensor)
    if tensor.heads and shape.interleaved:
        values = interleave(values, tensor.heads)
    quantised: NDArray[np.uint8] = gguf.quantize(values, kind)
    return quantised
