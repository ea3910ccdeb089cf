"""A BERT encoder on the OpenVINO runtime: tokens in, one unit vector out. Imported by workers only.

The graph is built from config.json and model.safetensors with OpenVINO's own operations, so neither torch nor
transformers is needed; mean pooling and normalisation stand inside the graph (sentence-transformers/all-MiniLM-L6-v2,
model card: mean pooling, then L2). It is stored once as OpenVINO IR in the cache.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Literal

import numpy as np
import openvino as ov
import openvino.opset16 as op
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file
from tokenizers import Tokenizer

_GRAPH_VERSION = 1
_MASKED = 3e4
"""How far padding is pushed down before the softmax: finite, so that bf16 keeps it and no row becomes NaN."""

_BATCH_TOKENS = 4096


@dataclass(frozen=True)
class Shape:
    """What config.json says of the encoder."""

    layers: int
    heads: int
    hidden: int
    epsilon: float
    positions: int
    vocabulary: int

    @classmethod
    def read(cls, folder: Path) -> "Shape":
        """Raises ValueError naming the file where it is not a BERT encoder's."""
        file = folder / "config.json"
        try:
            told = json.loads(file.read_text(encoding="utf-8"))
            if told.get("model_type") != "bert":
                raise ValueError(f"{file}: model_type is {told.get('model_type')!r}; this engine serves bert")
            return cls(
                layers=int(told["num_hidden_layers"]),
                heads=int(told["num_attention_heads"]),
                hidden=int(told["hidden_size"]),
                epsilon=float(told["layer_norm_eps"]),
                positions=int(told["max_position_embeddings"]),
                vocabulary=int(told["vocab_size"]),
            )
        except (json.JSONDecodeError, UnicodeDecodeError, AttributeError) as error:
            raise ValueError(f"{file}: not a model's config.json: {error}") from error
        except KeyError as error:
            raise ValueError(f"{file}: has no {error}") from error


class Encoder:
    """Weights, tokenizer and one compiled graph. One thread uses it."""

    def __init__(
        self, folder: Path, cache: Path, precision: Literal["auto", "f32", "bf16"], threads: int | None
    ) -> None:
        """Blocks for a second or less once the cache is warm. Raises ValueError naming the file at fault."""
        self.shape = Shape.read(folder)
        self.tokenizer_file = folder / "tokenizer.json"
        self._tokenizer = _tokenizer(self.tokenizer_file, self.shape.vocabulary)
        self.window = self.shape.positions
        core = ov.Core()
        self.precision = _precision(core, precision)
        settings: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": self.precision,
            "PERFORMANCE_HINT": "LATENCY",
            "CACHE_DIR": str(cache / "compiled"),
        }
        if threads is not None:
            settings["INFERENCE_NUM_THREADS"] = threads
        self._request = _compiled(core, folder, self.shape, cache, settings).create_infer_request()
        self._first = _special(self._tokenizer, self.tokenizer_file, "[CLS]")
        self._last = _special(self._tokenizer, self.tokenizer_file, "[SEP]")

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, special tokens included, nothing cut."""
        return [encoded.ids for encoded in self._tokenizer.encode_batch(list(texts))]

    def framed(self, ids: list[int]) -> list[int]:
        """Bare token ids with the special tokens around them."""
        return [self._first, *ids, self._last]

    def count(self, text: str) -> int:
        """Tokens of `text` without special ones."""
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def encode(self, rows: list[list[int]]) -> NDArray[np.float32]:
        """Unit vectors [rows, hidden] of one padded batch; every row at most `window` ids long."""
        longest = max(map(len, rows))
        ids = np.zeros((len(rows), longest), np.int64)
        mask = np.zeros_like(ids)
        for at, row in enumerate(rows):
            ids[at, : len(row)] = row
            mask[at, : len(row)] = 1
        self._request.infer({"input_ids": ids, "attention_mask": mask})
        # The tensor is overwritten by the next call.
        return np.array(self._request.get_tensor("embedding").data, np.float32)


def next_batch(lengths: Sequence[int]) -> int:
    """How many of the rows, sorted shortest first, fit into one padded batch of about 4096 tokens; at least one."""
    count = 0
    for count, length in enumerate(lengths, start=1):  # the count is the result
        if count > 1 and count * length > _BATCH_TOKENS:
            return count - 1
    return count


def _tokenizer(file: Path, vocabulary: int) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises plain Exception for every fault of the file
        raise ValueError(f"{file}: not a tokenizer: {error}") from error
    size = tokenizer.get_vocab_size()
    if size > vocabulary:
        raise ValueError(f"{file}: has {size} tokens, the weights have {vocabulary}: they do not belong together")
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _special(tokenizer: Tokenizer, file: Path, token: str) -> int:
    number: int | None = tokenizer.token_to_id(token)
    if number is None:
        raise ValueError(f"{file}: has no {token} token, which a bert encoder needs")
    return number


def _precision(core: ov.Core, asked: Literal["auto", "f32", "bf16"]) -> str:
    can = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if asked == "auto":
        return "bf16" if "BF16" in can else "f32"
    if asked == "bf16" and "BF16" not in can:
        raise ValueError("precision: this processor does not compute in bf16; use auto or f32")
    return asked


# ---- the graph, and its place in the cache --------------------------------------------------------------------------


def _compiled(core: ov.Core, folder: Path, shape: Shape, cache: Path, settings: dict[str, Any]) -> ov.CompiledModel:
    weights = folder / "model.safetensors"
    home = cache / "encoders" / _fingerprint(weights)
    if not (home / "model.xml").exists():
        _store(build(weights, shape), home)
    try:
        return core.compile_model(str(home / "model.xml"), "CPU", settings)
    except RuntimeError:
        # A cache that was cut short is made again; a fault of the graph itself comes back from the second try.
        shutil.rmtree(home, ignore_errors=True)
        _store(build(weights, shape), home)
        return core.compile_model(str(home / "model.xml"), "CPU", settings)


def _fingerprint(weights: Path) -> str:
    with weights.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    digest.update(f"{ov.__version__} graph {_GRAPH_VERSION}".encode())
    return digest.hexdigest()[:24]


def _store(model: ov.Model, home: Path) -> None:
    """All or nothing: written beside and renamed, so that another process never meets half of it."""
    home.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(mkdtemp(dir=home.parent))
    ov.save_model(model, str(beside / "model.xml"), compress_to_fp16=False)
    try:
        beside.replace(home)
    except OSError:
        shutil.rmtree(beside)
        if not (home / "model.xml").exists():
            raise


def build(weights: Path, shape: Shape) -> ov.Model:
    """The encoder as a graph: input_ids and attention_mask [B, S] int64 to embedding [B, hidden] float32."""
    try:
        tensors: dict[str, NDArray[Any]] = load_file(weights)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{weights}: cannot be read: {error}") from error
    try:
        return _Graph(tensors, shape).model()
    except KeyError as error:
        raise ValueError(f"{weights}: has no tensor {error}") from error


class _Graph:
    """Builds one encoder; names are those of Hugging Face's BertModel."""

    def __init__(self, tensors: dict[str, NDArray[Any]], shape: Shape) -> None:
        prefix = "bert." if "bert.embeddings.word_embeddings.weight" in tensors else ""
        self._tensor: Callable[[str], NDArray[Any]] = lambda name: np.ascontiguousarray(
            tensors[prefix + name], np.float32
        )
        self._shape = shape

    def model(self) -> ov.Model:
        ids, mask = (op.parameter([-1, -1], np.int64) for _ in range(2))
        ids.output(0).set_names({"input_ids"})
        mask.output(0).set_names({"attention_mask"})
        keep = op.convert(mask, "f32")
        bias = op.multiply(op.subtract(op.unsqueeze(keep, _ints(1, 2)), _float(1.0)), _float(_MASKED))
        state = self._embedded(ids)
        for layer in range(self._shape.layers):
            state = self._layer(state, bias, f"encoder.layer.{layer}.")
        pooled = _pooled(state, keep)
        pooled.output(0).set_names({"embedding"})
        return ov.Model([op.result(pooled)], [ids, mask], "encoder")

    def _embedded(self, ids: ov.Node) -> ov.Node:
        words = self._tensor("embeddings.word_embeddings.weight")
        kinds = self._tensor("embeddings.token_type_embeddings.weight")
        places = self._tensor("embeddings.position_embeddings.weight") + kinds[0]
        length = op.unsqueeze(op.gather(op.shape_of(ids, "i64"), _long(1), _long(0)), _ints(0))
        here = op.slice(op.constant(places), _longs(0), length, _longs(1), _longs(0))
        summed = op.add(op.gather(op.constant(words), op.convert(ids, "i32"), _ints(0)), here)
        return self._normed(summed, "embeddings.LayerNorm")

    def _layer(self, state: ov.Node, bias: ov.Node, name: str) -> ov.Node:
        heads = _longs(0, 0, self._shape.heads, self._shape.hidden // self._shape.heads)
        swap = _ints(0, 2, 1, 3)
        query, key, value = (
            op.transpose(op.reshape(self._linear(state, f"{name}attention.self.{part}"), heads, True), swap)
            for part in ("query", "key", "value")
        )
        attended = op.scaled_dot_product_attention(query, key, value, bias)
        joined = op.reshape(op.transpose(attended, swap), _longs(0, 0, self._shape.hidden), True)
        added = op.add(self._linear(joined, f"{name}attention.output.dense"), state)
        state = self._normed(added, f"{name}attention.output.LayerNorm")
        inner = op.gelu(self._linear(state, f"{name}intermediate.dense"), "ERF")
        return self._normed(op.add(self._linear(inner, f"{name}output.dense"), state), f"{name}output.LayerNorm")

    def _linear(self, x: ov.Node, name: str) -> ov.Node:
        weight, bias = (op.constant(self._tensor(f"{name}.{part}")) for part in ("weight", "bias"))
        return op.add(op.matmul(x, weight, False, True), bias)

    def _normed(self, x: ov.Node, name: str) -> ov.Node:
        scale, shift = (op.constant(self._tensor(f"{name}.{part}")) for part in ("weight", "bias"))
        return op.add(op.multiply(op.mvn(x, _ints(-1), True, self._shape.epsilon, "INSIDE_SQRT"), scale), shift)


def _pooled(state: ov.Node, keep: ov.Node) -> ov.Node:
    """The mean of the real tokens, at unit length."""
    weights = op.unsqueeze(keep, _ints(-1))
    total = op.reduce_sum(op.multiply(state, weights), _ints(1), False)
    mean = op.divide(total, op.maximum(op.reduce_sum(weights, _ints(1), False), _float(1e-9)))
    return op.normalize_l2(mean, _ints(1), 1e-12, "max")


def _ints(*values: int) -> ov.Node:
    return op.constant(np.array(values, np.int32))


def _longs(*values: int) -> ov.Node:
    return op.constant(np.array(values, np.int64))


def _long(value: int) -> ov.Node:
    return op.constant(np.int64(value))


def _float(value: float) -> ov.Node:
    return op.constant(np.float32(value))
