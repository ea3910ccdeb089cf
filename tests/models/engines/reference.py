"""Encoders in plain numpy and float64, to hold the engine's graph against; slow, and written apart.

BERT (Devlin et al. 2019), RoBERTa (Liu et al. 2019) and DistilBERT (Sanh et al. 2019), with their classifiers' heads.
"""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

Array = NDArray[np.float64]

_erf = np.vectorize(math.erf, otypes=[np.float64])

_BERT = {
    "layers": "encoder.layer",
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "joined": "attention.output.dense",
    "attended": "attention.output.LayerNorm",
    "wide": "intermediate.dense",
    "narrow": "output.dense",
    "ended": "output.LayerNorm",
}
_DISTIL = {
    "layers": "transformer.layer",
    "query": "attention.q_lin",
    "key": "attention.k_lin",
    "value": "attention.v_lin",
    "joined": "attention.out_lin",
    "attended": "sa_layer_norm",
    "wide": "ffn.lin1",
    "narrow": "ffn.lin2",
    "ended": "output_layer_norm",
}


class Reference:
    """One sequence at a time, no padding."""

    def __init__(self, folder: Path) -> None:
        self._config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        self._family = self._config["model_type"]
        self._names = _DISTIL if self._family == "distilbert" else _BERT
        tensors = load_file(folder / "model.safetensors")
        body = f"{self._family.rpartition('-')[2]}."
        self._weights = {name.removeprefix(body): each.astype(np.float64) for name, each in tensors.items()}

    def embed(self, ids: list[int], pooling: str = "mean") -> Array:
        states = self.states(ids, [0] * len(ids))
        pooled = {"mean": states.mean(axis=0), "cls": states[0], "lasttoken": states[-1]}[pooling]
        return np.asarray(pooled / np.linalg.norm(pooled))

    def score(self, ids: list[int], kinds: list[int]) -> float:
        """The sigmoid of the classifier's one logit."""
        first = self.states(ids, kinds)[0]
        if self._family == "bert":
            logit = self._linear(np.tanh(self._linear(first, "pooler.dense")), "classifier")
        elif self._family == "distilbert":
            logit = self._linear(np.maximum(self._linear(first, "pre_classifier"), 0), "classifier")
        else:
            logit = self._linear(np.tanh(self._linear(first, "classifier.dense")), "classifier.out_proj")
        return float(1 / (1 + np.exp(-logit[0])))

    def states(self, ids: list[int], kinds: list[int]) -> Array:
        table = "embeddings.{}_embeddings.weight"
        start = self._config["pad_token_id"] + 1 if "roberta" in self._family else 0
        places = self._weights[table.format("position")][start : start + len(ids)]
        x = self._weights[table.format("word")][ids] + places
        if self._family != "distilbert":
            x = x + self._weights[table.format("token_type")][kinds]
        x = self._norm(x, "embeddings.LayerNorm")
        for layer in range(self._config.get("num_hidden_layers") or self._config["n_layers"]):
            x = self._layer(x, f"{self._names['layers']}.{layer}.")
        return x

    def _layer(self, x: Array, name: str) -> Array:
        heads = self._config.get("num_attention_heads") or self._config["n_heads"]
        query, key, value = (
            self._linear(x, name + self._names[part]).reshape(len(x), heads, -1).swapaxes(0, 1)
            for part in ("query", "key", "value")
        )
        scores = query @ key.swapaxes(1, 2) / math.sqrt(query.shape[-1])
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        mixed = (weights / weights.sum(axis=-1, keepdims=True)) @ value
        attended = self._linear(mixed.swapaxes(0, 1).reshape(len(x), -1), name + self._names["joined"])
        x = self._norm(x + attended, name + self._names["attended"])
        inner = self._linear(x, name + self._names["wide"])
        inner = inner * (1 + _erf(inner / math.sqrt(2))) / 2
        return self._norm(x + self._linear(inner, name + self._names["narrow"]), name + self._names["ended"])

    def _linear(self, x: Array, name: str) -> Array:
        return np.asarray(x @ self._weights[f"{name}.weight"].T + self._weights[f"{name}.bias"])

    def _norm(self, x: Array, name: str) -> Array:
        epsilon = self._config.get("layer_norm_eps", 1e-12)
        spread = np.sqrt(x.var(axis=-1, keepdims=True) + epsilon)
        scaled = (x - x.mean(axis=-1, keepdims=True)) / spread
        return np.asarray(scaled * self._weights[f"{name}.weight"] + self._weights[f"{name}.bias"])
