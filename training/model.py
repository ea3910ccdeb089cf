"""The reader to be trained: MiniLM's six layers in bfloat16 arithmetic, with frozen embeddings and a span head.

Written out rather than taken from transformers, because on a processor the casts that autocast adds, the mask's
expansion and three narrow projections instead of one cost as much as the arithmetic. There is no dropout: a run of an
hour sees a question two or three times, with another window each time.
"""

import math
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

HIDDEN, LAYERS, HEADS, INNER, EPSILON = 384, 6, 12, 1536, 1e-12
_MASKED = -3e4


class Linear(nn.Module):
    """Master weights in float32, the product in bfloat16."""

    def __init__(self, come: int, go: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(go, come))
        self.bias = nn.Parameter(torch.zeros(go))
        nn.init.normal_(self.weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(x.dtype), self.bias.to(x.dtype))


class Norm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(HIDDEN))
        self.bias = nn.Parameter(torch.zeros(HIDDEN))

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, (HIDDEN,), self.weight.to(x.dtype), self.bias.to(x.dtype), EPSILON)


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.heads, self.joint = Linear(HIDDEN, 3 * HIDDEN), Linear(HIDDEN, HIDDEN)
        self.widen, self.narrow = Linear(HIDDEN, INNER), Linear(INNER, HIDDEN)
        self.after_attention, self.after_inner = Norm(), Norm()

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        batch, length, _ = x.shape
        shape = (batch, length, 3, HEADS, HIDDEN // HEADS)
        query, key, value = self.heads(x).view(shape).permute(2, 0, 3, 1, 4)
        near = (query * (1 / math.sqrt(HIDDEN // HEADS))) @ key.transpose(-1, -2) + bias
        joined = (near.softmax(-1) @ value).transpose(1, 2).reshape(batch, length, HIDDEN)
        x = self.after_attention(x + self.joint(joined))
        return self.after_inner(x + self.narrow(F.gelu(self.widen(x))))


class Reader(nn.Module):
    """Start and end logits of every token; token 0 stands for "the answer is not here"."""

    def __init__(self, encoder: Path) -> None:
        """`encoder` is MiniLM's model.safetensors, by Hugging Face's names."""
        super().__init__()
        given = load_file(encoder)
        for name in ("word_embeddings", "position_embeddings", "token_type_embeddings"):
            self.register_buffer(name, given[f"embeddings.{name}.weight"].float(), persistent=False)
        for name in ("weight", "bias"):
            self.register_buffer(f"scale_{name}", given[f"embeddings.LayerNorm.{name}"].float(), persistent=False)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.span = Linear(HIDDEN, 2)
        self.take(given)

    def forward(self, ids: Tensor, kinds: Tensor, mask: Tensor) -> Tensor:
        """Logits [B, S, 2] float32 from ids, token types and mask [B, S]; padding and the question are not masked."""
        summed = F.embedding(ids, self.word_embeddings) + self.position_embeddings[: ids.shape[1]]
        summed = summed + F.embedding(kinds, self.token_type_embeddings)
        x = F.layer_norm(summed, (HIDDEN,), self.scale_weight, self.scale_bias, EPSILON).bfloat16()
        bias = ((1 - mask) * _MASKED)[:, None, None, :].bfloat16()
        for layer in self.layers:
            x = layer(x, bias)
        return self.span(x.float())

    def take(self, given: dict[str, Tensor]) -> None:
        """Copies layers, and the span head where `given` has one, by the names of `named`."""
        with torch.no_grad():
            for name, tensor in self.named().items():
                if name in given:
                    tensor.copy_(given[name])

    def named(self) -> dict[str, Tensor]:
        """Views of the trained weights by Hugging Face's names of a BERT encoder with a span head."""
        found: dict[str, Tensor] = {"qa_outputs.weight": self.span.weight, "qa_outputs.bias": self.span.bias}
        for place, layer in enumerate(self.layers):
            stem = f"encoder.layer.{place}."
            parts = ("attention.self.query", "attention.self.key", "attention.self.value")
            for number, part in enumerate(parts):
                rows = slice(number * HIDDEN, (number + 1) * HIDDEN)
                found[f"{stem}{part}.weight"] = layer.heads.weight[rows]
                found[f"{stem}{part}.bias"] = layer.heads.bias[rows]
            rest = {
                "attention.output.dense": layer.joint,
                "attention.output.LayerNorm": layer.after_attention,
                "intermediate.dense": layer.widen,
                "output.dense": layer.narrow,
                "output.LayerNorm": layer.after_inner,
            }
            for part, module in rest.items():
                found[f"{stem}{part}.weight"], found[f"{stem}{part}.bias"] = module.weight, module.bias
        return found
