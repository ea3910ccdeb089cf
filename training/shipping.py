"""What ships of a trained reader: layers and span head, int8 with a scale a row, and what was measured, as metadata."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

STEPS = 127


def ship(trained: Mapping[str, Tensor], file: Path, metadata: Mapping[str, Any]) -> None:
    """Writes `trained`, by Hugging Face's names; matrices of the layers become int8, everything else float32."""
    tensors: dict[str, Tensor] = {}
    for name, tensor in trained.items():
        values = tensor.detach().float()
        if values.ndim == 2 and not name.startswith("qa_outputs"):
            scale = values.abs().amax(1, keepdim=True).clamp_min(1e-8) / STEPS
            tensors[name] = (values / scale).round().to(torch.int8)
            tensors[f"{name}_scale"] = scale
        else:
            tensors[name] = values.contiguous()
    file.parent.mkdir(parents=True, exist_ok=True)
    told = {key: json.dumps(value, ensure_ascii=False) for key, value in metadata.items()}
    save_file(tensors, file, metadata={"format": "pt", **told})
