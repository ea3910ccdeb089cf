"""What the check asks of the machine: whether it can begin, what it is, its GPUs' memory and the server's processes."""

import os
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from server.models import cuda
from server.models.engines.exllama import extension

_PACKAGES = ("hearth", "torch", "triton", "transformers", "exllamav2")


def lacking() -> str | None:
    """In one sentence what this machine needs before the check can begin; None where it has everything."""
    if not cuda.gpus():
        return "no CUDA device: nvidia-smi finds no NVIDIA GPU; `scripts/gpu-check all --device cpu` is a dry run"
    if (reason := cuda.torch_lacks()) is not None:
        return f"{reason}: install one from pytorch.org"
    for package in ("transformers", "exllamav2"):
        if (extension.version(package) if package == "exllamav2" else _version(package)) is None:
            extra = "cuda" if package == "exllamav2" else "transformers"
            return f"{package} is not installed; run: pip install 'hearth[{extra}]'"
    if cuda.nvcc() is None:
        return (
            "nvcc is not installed, and the extension of exllamav2 is compiled with it: install the CUDA toolkit, or "
            "say where it is by CUDA_HOME"
        )
    return None


def machine(device: str) -> dict[str, Any]:
    """What the figures were measured on."""
    found = [f"{gpu.name} (sm {gpu.capability})" for gpu in cuda.gpus()]
    told: dict[str, Any] = {"device": ", ".join(found) if device == "cuda" else f"cpu, {os.cpu_count()} processors"}
    told["when"] = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    return told | {name: _version(name) for name in _PACKAGES if _version(name)}


def used_memory() -> int | None:
    """Bytes of all GPUs that are in use; None where the driver does not tell."""
    found = [(gpu.total, gpu.free) for gpu in cuda.gpus()]
    known = [total - free for total, free in found if total is not None and free is not None]
    return sum(known) if known and len(known) == len(found) else None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def worker_of(gateway: int) -> int | None:
    """The one process that the gateway has started for its model, by /proc."""
    children = Path(f"/proc/{gateway}/task/{gateway}/children")
    found = [int(each) for each in children.read_text(encoding="utf-8").split()] if children.exists() else []
    named = [each for each in found if b"worker" in Path(f"/proc/{each}/cmdline").read_bytes()]
    return (named or found or [None])[0]


def alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in ("Z", "X")
