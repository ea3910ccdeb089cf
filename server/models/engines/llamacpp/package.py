"""The package xllamacpp, which brings llama.cpp: the one built on this machine before the one that was installed."""

import importlib
from pathlib import Path
from typing import Any

from server.models import native


def imported(engines: Path) -> tuple[Any, bool]:
    """xllamacpp, by choice the one built on this machine, and whether its llama.cpp follows grammars."""
    built = native.found(engines)
    if built is not None:
        native.prefer(built)
    try:
        package = importlib.import_module("xllamacpp")
    except ImportError as error:
        raise RuntimeError(
            f"the engine llamacpp cannot load the package xllamacpp ({error}); run: pip install xllamacpp, "
            "and on Debian: apt-get install libgomp1"
        ) from error
    return package, built is None or built.grammars


def device(llama: Any) -> str:
    """The first device that is not the processor, such as Metal or CUDA0, as llama.cpp names it; else cpu."""
    kinds = llama.ggml_backend_dev_type
    graphics = (kinds.GGML_BACKEND_DEVICE_TYPE_GPU, kinds.GGML_BACKEND_DEVICE_TYPE_IGPU)
    return next((str(each["name"]) for each in llama.get_device_info() if each["type"] in graphics), "cpu")
