"""AWQ weights of 4 bits as GPTQ ones, which ExLlamaV2 reads: the same numbers in another order, bit by bit.

AWQ (arXiv 2306.00978, layout gemm) packs eight columns into 32 bits, in the order 0 2 4 6 1 3 5 7; GPTQ (arXiv
2210.17323) packs eight rows, in order, and keeps each zero point less one. torch is imported by whoever calls this.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from server.models.header import WeightsError, config, parts

_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
_PACKED = ("qweight", "qzeros")
_BESIDE = (
    *("model.safetensors.index.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"),
    *("chat_template.jinja", "preprocessor_config.json", "processor_config.json"),
)
"""What of a folder is taken over as it is."""


def repack(folder: Path, target: Path, progress: Callable[[str], None] = lambda _: None) -> None:
    """Write the AWQ model of `folder` as a GPTQ one into `target`, a folder that is there and empty.

    Reads and writes one file of weights at a time, and as much of it as one tensor. Raises WeightsError, naming the
    tensor, where a zero point is 0: less one it has no place in 4 bits.
    """
    from safetensors import safe_open
    from safetensors.torch import save_file

    files = parts(folder)
    for number, file in enumerate(files, 1):
        progress(f"repacking {file.name} ({number} of {len(files)})")
        made: dict[str, Any] = {}
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118  # it is no mapping
                made[name] = _converted(name, opened.get_tensor(name), file)
        save_file(made, target / file.name, metadata={"format": "pt"})
    for name in _BESIDE:
        if (folder / name).is_file():
            (target / name).write_bytes((folder / name).read_bytes())
    told = config(folder)
    group = int((told.get("quantization_config") or {}).get("group_size") or 128)
    told["quantization_config"] = {
        "quant_method": "gptq",
        "bits": 4,
        "group_size": group,
        "desc_act": False,
        "sym": False,
        "checkpoint_format": "gptq",
    }
    (target / "config.json").write_text(json.dumps(told, indent=2), encoding="utf-8")


def _converted(name: str, tensor: Any, file: Path) -> Any:
    kind = name.rpartition(".")[2]
    if kind not in _PACKED:
        return tensor
    values = _columns(tensor)
    if kind == "qweight":
        return _rows_packed(values)
    if bool((values == 0).any()):
        raise WeightsError(
            f"{file}: the tensor {name} has a zero point of 0, which GPTQ cannot hold; it cannot be repacked"
        )
    return _columns_packed(values - 1)


def _columns(packed: Any) -> Any:
    """int32 [rows, columns / 8], AWQ's order, to values 0 to 15, int32 [rows, columns]."""
    import torch

    parts = torch.stack([(packed >> (4 * place)) & 0xF for place in range(8)], -1)
    back = torch.empty_like(parts)
    back[..., list(_ORDER)] = parts
    return back.reshape(packed.shape[0], -1)


def _rows_packed(values: Any) -> Any:
    """0 to 15 [rows, columns] to int32 [rows / 8, columns], GPTQ's order."""
    rows = values.reshape(-1, 8, values.shape[1])
    return _joined([rows[:, place] for place in range(8)])


def _columns_packed(values: Any) -> Any:
    """0 to 15 [rows, columns] to int32 [rows, columns / 8], GPTQ's order."""
    columns = values.reshape(values.shape[0], -1, 8)
    return _joined([columns[..., place] for place in range(8)])


def _joined(nibbles: list[Any]) -> Any:
    import torch

    whole = torch.zeros_like(nibbles[0], dtype=torch.int64)
    for place, each in enumerate(nibbles):
        whole |= each.to(torch.int64) << (4 * place)
    return torch.where(whole >= 2**31, whole - 2**32, whole).to(torch.int32).contiguous()
