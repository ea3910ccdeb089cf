"""The sizes of the models the tests and benches build: four families, three shapes, and every tensor they have."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

FAMILIES = ("llama", "qwen2", "qwen3", "mistral")


@dataclass(frozen=True)
class Llama3Rope:
    """Rotary frequencies stretched as Llama 3.1 does it (rope_type llama3 of Hugging Face configurations)."""

    factor: float = 8.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_context: int = 256
    """Tokens; far below a real model's, so that every branch of the formula acts within a test's prompt."""


@dataclass(frozen=True)
class Shape:
    """A decoder of one family; `vocabulary` counts the rows of the embedding, unused ones included."""

    family: str
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocabulary: int
    tied: bool
    theta: float
    context: int = 4096
    epsilon: float = 1e-5
    window: int | None = None
    rope: Llama3Rope | None = None

    @property
    def architecture(self) -> str:
        """The name GGUF files give the family; a Mistral is a llama to them."""
        return "llama" if self.family == "mistral" else self.family

    @property
    def interleaved(self) -> bool:
        """Whether GGUF stores the rows of q and k in pairs, (0, half), (1, half + 1) and so on, within each head."""
        return self.architecture == "llama"


@dataclass(frozen=True)
class Tensor:
    """One tensor under its Hugging Face and its GGUF name; `shape` is rows by columns, as numpy has it."""

    name: str
    gguf: str
    shape: tuple[int, ...]
    heads: int = 0
    """For q and k: how many heads the rows belong to."""

    @property
    def part(self) -> str:
        """What it is within its layer: `q_proj.weight`, `input_layernorm.weight`, `embed_tokens.weight` ..."""
        return ".".join(self.name.split(".")[-2:])


_SMALL = {
    "llama": Shape("llama", 256, 2, 4, 2, 64, 512, 2048, tied=False, theta=500_000.0),
    "qwen2": Shape("qwen2", 192, 3, 3, 1, 64, 384, 2048, tied=True, theta=1_000_000.0, epsilon=1e-6),
    "qwen3": Shape("qwen3", 128, 2, 4, 2, 64, 384, 2048, tied=True, theta=1_000_000.0, epsilon=1e-6),
    "mistral": Shape("mistral", 256, 2, 4, 2, 64, 512, 2048, tied=False, theta=10_000.0, window=64),
}
_30M = Shape("llama", 512, 8, 8, 4, 64, 1536, 12_928, tied=True, theta=500_000.0)
_06B = Shape("qwen3", 1024, 28, 16, 8, 128, 3072, 151_936, tied=True, theta=1_000_000.0, context=40_960, epsilon=1e-6)
SHAPES = ("small", "30m", "0.6b")


def random_shape(shape: str, family: str, *, rope_scaling: bool = False) -> Shape:
    """The named shape of a family; 30m is a llama of 31.8 million weights, 0.6b has Qwen3-0.6B's sizes."""
    chosen = _SMALL[family] if shape == "small" else {"30m": _30M, "0.6b": _06B}[shape]
    if chosen.family != family:
        raise ValueError(f"shape {shape} is of family {chosen.family}, not {family}")
    if rope_scaling:
        if family != "llama":
            raise ValueError(f"only llama has its rope scaled, not {family}")
        chosen = replace(chosen, rope=Llama3Rope())
    return chosen


def tensors(shape: Shape) -> Iterator[Tensor]:
    """Every tensor of the model, in the order files hold them."""
    yield Tensor("model.embed_tokens.weight", "token_embd.weight", (shape.vocabulary, shape.hidden))
    for layer in range(shape.layers):
        yield from _layer(shape, f"model.layers.{layer}.", f"blk.{layer}.")
    yield Tensor("model.norm.weight", "output_norm.weight", (shape.hidden,))
    if not shape.tied:
        yield Tensor("lm_head.weight", "output.weight", (shape.vocabulary, shape.hidden))


def _layer(shape: Shape, name: str, gguf: str) -> Iterator[Tensor]:
    hidden, queries, keys = shape.hidden, shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    yield Tensor(f"{name}input_layernorm.weight", f"{gguf}attn_norm.weight", (hidden,))
    for letter, rows, heads in (("q", queries, shape.heads), ("k", keys, shape.kv_heads), ("v", keys, 0)):
        yield Tensor(f"{name}self_attn.{letter}_proj.weight", f"{gguf}attn_{letter}.weight", (rows, hidden), heads)
        if shape.family == "qwen2":
            yield Tensor(f"{name}self_attn.{letter}_proj.bias", f"{gguf}attn_{letter}.bias", (rows,), heads)
    if shape.family == "qwen3":
        for letter in "qk":
            yield Tensor(f"{name}self_attn.{letter}_norm.weight", f"{gguf}attn_{letter}_norm.weight", (shape.head_dim,))
    yield Tensor(f"{name}self_attn.o_proj.weight", f"{gguf}attn_output.weight", (hidden, queries))
    yield Tensor(f"{name}post_attention_layernorm.weight", f"{gguf}ffn_norm.weight", (hidden,))
    yield Tensor(f"{name}mlp.gate_proj.weight", f"{gguf}ffn_gate.weight", (shape.ffn, hidden))
    yield Tensor(f"{name}mlp.up_proj.weight", f"{gguf}ffn_up.weight", (shape.ffn, hidden))
    yield Tensor(f"{name}mlp.down_proj.weight", f"{gguf}ffn_down.weight", (hidden, shape.ffn))
