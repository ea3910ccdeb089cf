"""BERT in plain numpy and float64 (Devlin et al. 2019), to hold the engine's graph against; slow, and written apart."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

Array = NDArray[np.float64]

_erf = np.vectorize(math.erf, otypes=[np.float64])


class Reference:
    """One sequence at a time, no padding."""

    def __init__(self, folder: Path) -> None:
        self._config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        self._weights = {
            name: each.astype(np.float64) for name, each in load_file(folder / "model.safetensors").items()
        }

    def embed(self, ids: list[int], pooling: str = "mean") -> Array:
        states = self.states(ids)
        pooled = states.mean(axis=0) if pooling == "mean" else states[0]
        return np.asarray(pooled / np.linalg.norm(pooled))

    def states(self, ids: list[int]) -> Array:
        table = "embeddings.{}_embeddings.weight"
        x = self._weights[table.format("word")][ids] + self._weights[table.format("position")][: len(ids)]
        x = self._norm(x + self._weights[table.format("token_type")][0], "embeddings.LayerNorm")
        for layer in range(self._config["num_hidden_layers"]):
            x = self._layer(x, f"encoder.layer.{layer}")
        return x

    def _layer(self, x: Array, name: str) -> Array:
        heads = self._config["num_attention_heads"]
        query, key, value = (
            self._linear(x, f"{name}.attention.self.{part}").reshape(len(x), heads, -1).swapaxes(0, 1)
            for part in ("query", "key", "value")
        )
        scores = query @ key.swapaxes(1, 2) / math.sqrt(query.shape[-1])
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        mixed = (weights / weights.sum(axis=-1, keepdims=True)) @ value
        attended = self._linear(mixed.swapaxes(0, 1).reshape(len(x), -1), f"{name}.attention.output.dense")
        x = self._norm(x + attended, f"{name}.attention.output.LayerNorm")
        inner = self._linear(x, f"{name}.intermediate.dense")
        inner = inner * (1 + _erf(inner / math.sqrt(2))) / 2
        return self._norm(x + self._linear(inner, f"{name}.output.dense"), f"{name}.output.LayerNorm")

    def _linear(self, x: Array, name: str) -> Array:
        return np.asarray(x @ self._weights[f"{name}.weight"].T + self._weights[f"{name}.bias"])

    def _norm(self, x: Array, name: str) -> Array:
        spread = np.sqrt(x.var(axis=-1, keepdims=True) + self._config["layer_norm_eps"])
        scaled = (x - x.mean(axis=-1, keepdims=True)) / spread
        return np.asarray(scaled * self._weights[f"{name}.weight"] + self._weights[f"{name}.bias"])
