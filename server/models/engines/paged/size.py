"""How much memory a decoder will take, from the header of its file alone; loads nothing and knows no runtime.

The shares of OpenVINO were measured at 2026.4 on shapes of 32 and 600 million weights: it packs matrices into a form
of its own, whose scales are f32, and holds about five megabytes of graph a layer. The constants it packed them from
are on the disk (see `constants`); without room there they take the same memory again.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gguf import GGMLQuantizationType

from server.models.engines.paged.folder import Folder
from server.models.engines.paged.gguf_file import GgufFile
from server.models.engines.paged.weights import GROUP, Shape, Tensor, tensors

_PROCESS = 90 << 20
"""Python with numpy and OpenVINO."""
_LAYER = 5_500_000
_LAYER_BY_KERNEL = 700_000
"""A layer's graph: mostly OpenVINO's multiplications, each made for its matrix; with ours it has none."""
_TOKEN = 300
"""One entry of the vocabulary, in the tokenizer and beside it."""
_KEPT_BY_OPENVINO = 2.1
"""Activations of a step that are there at once, over those of one layer."""
_ATTENDED = 8
"""What attention over one token of the context takes meanwhile, in bytes for each value of a query."""
_STEP = (512, 2048)
"""Tokens of a step of a prompt, at the least and most; a small model does more in the time that a step may take."""
_WEIGHTS_A_STEP = 4e11
"""Weights times tokens in the second that such a step takes, on two cores."""
_ROWS = 32
"""Sequences whose logits are there at once."""
_PAGE = 32


@dataclass(frozen=True)
class Memory:
    """Bytes. `weights` as they stay in memory, `cache` of keys and values, `graph` of what OpenVINO holds for it,
    `rest` of the process and activations."""

    weights: int
    cache: int
    graph: int
    rest: int

    @property
    def total(self) -> int:
        return self.weights + self.cache + self.graph + self.rest


def predicted(
    path: Path,
    *,
    keep_floats: bool,
    tokens: int,
    cache: str,
    precision: str,
    context: int | None = None,
    kernel: bool = False,
) -> Memory:
    """What the process of an engine will take with `tokens` in its cache, all of them in use, at most `context` of
    them of one sequence; None where all are.

    `path` is a .gguf file or a folder; `cache` is the recipe's word; `precision` is f32 or bf16; `kernel` says that
    quantised weights are held by the one compiled on this machine. Raises WeightsError as reading the file does.
    """
    source = (
        GgufFile(path, keep_floats=keep_floats) if path.suffix == ".gguf" else Folder(path, keep_floats=keep_floats)
    )
    shape = source.shape
    floats = 2 if precision == "bf16" else 4
    weights = 0.0
    matrices = 0
    for tensor, kind in _matrices(source):
        count = math.prod(tensor.size)
        matrices += 0 if tensor.name in ("embedding", "head") else count
        if tensor.name == "embedding" and source.has("head"):
            continue  # its rows are looked up on the disk
        scale = 2 if kernel else 4
        packed = count * (floats if kind == "float" else (0.5 if kind == "uint4" else 1) + scale / GROUP)
        # Exact f32 has two forms of some for one row and for many.
        weights += packed * (2 if precision == "f32" and kind != "float" and tensor.name in ("o", "down") else 1)
    step = min(max(_WEIGHTS_A_STEP / max(1, matrices), _STEP[0]), _STEP[1], tokens)
    wide = 2 * shape.hidden + 2 * (shape.heads + 2 * shape.kv_heads) * shape.head_dim + 3 * shape.ffn
    # With f32 a value takes twice the bytes, and a step has fewer tokens, for it computes more slowly.
    activations = step * wide * (2 + floats) / 2 * _KEPT_BY_OPENVINO
    attention = min(tokens, context or tokens) * shape.heads * shape.head_dim * _ATTENDED
    logits = _ROWS * shape.vocabulary * 4
    return Memory(
        int(weights),
        -(-tokens // _PAGE) * _PAGE * cache_of(shape, cache, precision),
        shape.layers * (_LAYER_BY_KERNEL if kernel else _LAYER),
        int(_PROCESS + shape.vocabulary * _TOKEN + activations + attention + logits),
    )


def cache_of(shape: Shape, cache: str, precision: str) -> int:
    """Bytes of keys and values for one token in all layers.

    With 8 bits a page of 32 keys has two f32 for each channel, scale and zero point; each value has them itself.
    """
    if cache == "q8":
        a_head = shape.head_dim * (_PAGE + 8) // _PAGE + shape.head_dim + 8
    else:
        a_head = 2 * shape.head_dim * (2 if precision == "bf16" else 4)
    return shape.layers * shape.kv_heads * a_head


def held(source: GgufFile | Folder, *, kernel: bool = False) -> int:
    """Bytes of the matrices as the graph holds them, before OpenVINO packs them. With the `kernel` of this machine
    those that it multiplies by are its own, and not among them."""
    sizes = {"float": 4, "int8": 1 + 2 / GROUP, "uint4": 0.5 + 2 / GROUP}
    return int(
        sum(
            math.prod(tensor.size) * sizes[kind]
            for tensor, kind in _matrices(source)
            if not kernel or kind == "float" or tensor.name == "embedding"
        )
    )


def _matrices(source: GgufFile | Folder) -> Iterator[tuple[Tensor, str]]:
    """Each matrix that is there, and how it is held: float, int8 or uint4."""
    for tensor in tensors(source.shape):
        if len(tensor.size) < 2 or not source.has(tensor.name, tensor.layer):
            continue
        kind = source.kind(tensor.name, tensor.layer) if isinstance(source, GgufFile) else None
        if kind == GGMLQuantizationType.Q4_0:
            yield tensor, "uint4"
        elif kind != GGMLQuantizationType.Q8_0 and (source.keep_floats or tensor.size[1] % GROUP):
            yield tensor, "float"
        else:
            yield tensor, "int8"
