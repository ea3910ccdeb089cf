"""A BERT encoder on the OpenVINO runtime: tokens in, one unit vector out. Imported by workers only.

The graph is built from config.json and model.safetensors with OpenVINO's own operations, so neither torch nor
transformers is needed; pooling (mean or first token, as 1_Pooling/config.json says) and normalisation stand inside the
graph. It is stored once as OpenVINO IR in the cache.
"""

import fcntl
import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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

_GRAPH_VERSION = 2
_MASKED = 3e4
"""How far padding is pushed down before the softmax: finite, so that bf16 keeps it and no row becomes NaN."""

_BATCH_TOKENS = 1536
"""About 100 ms of two cores. Batches of 4096 were no faster a token, and make everyone else wait 280 ms."""


@dataclass(frozen=True)
class Shape:
    """What config.json says of the encoder."""

    layers: int
    heads: int
    hidden: int
    epsilon: float
    inner: int
    positions: int
    vocabulary: int
    kinds: int
    pooling: Literal["mean", "cls"]

    @classmethod
    def read(cls, folder: Path) -> "Shape":
        """Raises ValueError naming the file where it is not a BERT encoder's, OSError where it cannot be read."""
        file = folder / "config.json"
        told = _json(file)
        for key, served in (("model_type", "bert"), ("hidden_act", "gelu"), ("position_embedding_type", "absolute")):
            if told.get(key, served if key != "model_type" else None) != served:
                raise ValueError(f"{file}: {key} is {told.get(key)!r}; this engine serves {served}")
        pooling = _pooling(folder / "1_Pooling" / "config.json")
        try:
            shape = cls(
                layers=int(told["num_hidden_layers"]),
                heads=int(told["num_attention_heads"]),
                hidden=int(told["hidden_size"]),
                epsilon=float(told["layer_norm_eps"]),
                inner=int(told["intermediate_size"]),
                positions=int(told["max_position_embeddings"]),
                vocabulary=int(told["vocab_size"]),
                kinds=int(told["type_vocab_size"]),
                pooling=pooling,
            )
        except KeyError as error:
            raise ValueError(f"{file}: has no {error}") from error
        except (TypeError, ValueError) as error:
            raise ValueError(f"{file}: a size is not a number: {error}") from error
        if min(shape.layers, shape.heads) < 1 or shape.hidden % shape.heads:
            raise ValueError(f"{file}: {shape.heads} attention heads do not divide a width of {shape.hidden}")
        return shape


def _pooling(file: Path) -> Literal["mean", "cls"]:
    """How token states become one vector; the mean where the model does not say."""
    if not file.exists():
        return "mean"
    told = {key for key, value in _json(file).items() if key.startswith("pooling_mode_") and value is True}
    if told == {"pooling_mode_mean_tokens"}:
        return "mean"
    if told == {"pooling_mode_cls_token"}:
        return "cls"
    raise ValueError(f"{file}: says {sorted(told)}; this engine serves pooling_mode_mean_tokens or _cls_token")


def _json(file: Path) -> dict[str, Any]:
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file}: is not JSON: {error}") from error
    if not isinstance(told, dict):
        raise ValueError(f"{file}: should hold a JSON object")
    return told


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
    """How many of the rows, sorted shortest first, fit into one padded batch of about 1500 tokens; at least one."""
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
    home = cache / "encoders" / _fingerprint(weights, shape)
    with _alone(cache):
        if not _is_whole(home):
            shutil.rmtree(home, ignore_errors=True)
            _store(build(weights, shape), home)
        return core.compile_model(str(home / "model.xml"), "CPU", settings)


@contextmanager
def _alone(cache: Path) -> Iterator[None]:
    """One process at a time: workers that start together use the same weights, and would read what another writes."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _fingerprint(weights: Path, shape: Shape) -> str:
    digest = hashlib.sha256(f"{_sum(weights)} {shape} {ov.__version__} graph {_GRAPH_VERSION}".encode())
    return digest.hexdigest()[:24]


def _sum(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _sums(home: Path) -> str:
    return f"{_sum(home / 'model.xml')} {_sum(home / 'model.bin')}"


def _is_whole(home: Path) -> bool:
    """Whether what is stored is what was written: a power cut may leave a file of the right size and nothing in it."""
    try:
        return (home / "sums").read_text(encoding="utf-8") == _sums(home)
    except (OSError, UnicodeDecodeError):
        return False


def _store(model: ov.Model, home: Path) -> None:
    """All or nothing: written beside and renamed."""
    home.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(mkdtemp(dir=home.parent))
    try:
        ov.save_model(model, str(beside / "model.xml"), compress_to_fp16=False)
        (beside / "sums").write_text(_sums(beside), encoding="utf-8")
        beside.replace(home)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def build(weights: Path, shape: Shape) -> ov.Model:
    """The encoder as a graph: input_ids and attention_mask [B, S] int64 to embedding [B, hidden] float32.

    Raises ValueError naming the file that cannot be read, or the tensor that is missing or has another shape.
    """
    try:
        tensors: dict[str, NDArray[Any]] = load_file(weights)
    except (SafetensorError, TypeError) as error:
        raise ValueError(f"{weights}: cannot be read: {error}") from error
    try:
        return _Graph(tensors, shape).model()
    except _Unfit as error:
        raise ValueError(f"{weights}: {error}") from error


class _Unfit(ValueError):
    """A tensor that is not what config.json leads one to expect."""


class _Graph:
    """Builds one encoder; names are those of Hugging Face's BertModel."""

    def __init__(self, tensors: dict[str, NDArray[Any]], shape: Shape) -> None:
        self._tensors = tensors
        self._prefix = "bert." if "bert.embeddings.word_embeddings.weight" in tensors else ""
        self._shape = shape

    def _tensor(self, name: str, *shape: int) -> NDArray[np.float32]:
        tensor = self._tensors.get(self._prefix + name)
        if tensor is None:
            raise _Unfit(f"has no tensor {name}")
        if tensor.shape != shape:
            raise _Unfit(f"{name} is {list(tensor.shape)}, by config.json it should be {list(shape)}")
        return np.ascontiguousarray(tensor, np.float32)

    def model(self) -> ov.Model:
        ids, mask = (op.parameter([-1, -1], np.int64) for _ in range(2))
        ids.output(0).set_names({"input_ids"})
        mask.output(0).set_names({"attention_mask"})
        keep = op.convert(mask, "f32")
        bias = op.multiply(op.subtract(op.unsqueeze(keep, _ints(1, 2)), _float(1.0)), _float(_MASKED))
        state = self._embedded(ids)
        for layer in range(self._shape.layers):
            state = self._layer(state, bias, f"encoder.layer.{layer}.")
        pooled = _unit(_mean(state, keep) if self._shape.pooling == "mean" else _first(state))
        pooled.output(0).set_names({"embedding"})
        return ov.Model([op.result(pooled)], [ids, mask], "encoder")

    def _embedded(self, ids: ov.Node) -> ov.Node:
        width = self._shape.hidden
        words = self._tensor("embeddings.word_embeddings.weight", self._shape.vocabulary, width)
        kinds = self._tensor("embeddings.token_type_embeddings.weight", self._shape.kinds, width)
        places = self._tensor("embeddings.position_embeddings.weight", self._shape.positions, width) + kinds[0]
        length = op.unsqueeze(op.gather(op.shape_of(ids, "i64"), _long(1), _long(0)), _ints(0))
        here = op.slice(op.constant(places), _longs(0), length, _longs(1), _longs(0))
        summed = op.add(op.gather(op.constant(words), op.convert(ids, "i32"), _ints(0)), here)
        return self._normed(summed, "embeddings.LayerNorm")

    def _layer(self, state: ov.Node, bias: ov.Node, name: str) -> ov.Node:
        width, inner = self._shape.hidden, self._shape.inner
        heads = _longs(0, 0, self._shape.heads, width // self._shape.heads)
        swap = _ints(0, 2, 1, 3)
        query, key, value = (
            op.transpose(
                op.reshape(self._linear(state, f"{name}attention.self.{part}", width, width), heads, True), swap
            )
            for part in ("query", "key", "value")
        )
        attended = op.scaled_dot_product_attention(query, key, value, bias)
        joined = op.reshape(op.transpose(attended, swap), _longs(0, 0, width), True)
        added = op.add(self._linear(joined, f"{name}attention.output.dense", width, width), state)
        state = self._normed(added, f"{name}attention.output.LayerNorm")
        wide = op.gelu(self._linear(state, f"{name}intermediate.dense", width, inner), "ERF")
        narrow = self._linear(wide, f"{name}output.dense", inner, width)
        return self._normed(op.add(narrow, state), f"{name}output.LayerNorm")

    def _linear(self, x: ov.Node, name: str, come: int, go: int) -> ov.Node:
        weight = op.constant(self._tensor(f"{name}.weight", go, come))
        return op.add(op.matmul(x, weight, False, True), op.constant(self._tensor(f"{name}.bias", go)))

    def _normed(self, x: ov.Node, name: str) -> ov.Node:
        scale, shift = (op.constant(self._tensor(f"{name}.{part}", self._shape.hidden)) for part in ("weight", "bias"))
        return op.add(op.multiply(op.mvn(x, _ints(-1), True, self._shape.epsilon, "INSIDE_SQRT"), scale), shift)


def _mean(state: ov.Node, keep: ov.Node) -> ov.Node:
    """The mean of the real tokens' states."""
    weights = op.unsqueeze(keep, _ints(-1))
    total = op.reduce_sum(op.multiply(state, weights), _ints(1), False)
    return op.divide(total, op.maximum(op.reduce_sum(weights, _ints(1), False), _float(1e-9)))


def _first(state: ov.Node) -> ov.Node:
    return op.gather(state, _long(0), _long(1))


def _unit(vectors: ov.Node) -> ov.Node:
    return op.normalize_l2(vectors, _ints(1), 1e-12, "max")


def _ints(*values: int) -> ov.Node:
    return op.constant(np.array(values, np.int32))


def _longs(*values: int) -> ov.Node:
    return op.constant(np.array(values, np.int64))


def _long(value: int) -> ov.Node:
    return op.constant(np.int64(value))


def _float(value: float) -> ov.Node:
    return op.constant(np.float32(value))
