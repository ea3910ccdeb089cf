"""The compiled extensions of ExLlamaV2 and V3: where one built on this machine lies, and whether it can be used.

PyPI has both packages as sources alone. They would compile themselves at the first import, without a limit and
without a word; so nothing imports them before their extension is at hand. Imports neither, and no torch.
"""

import importlib.util
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from server.models import cuda, native

MARK = "built.json"
"""Written last: a folder without it is half-built."""

PACKAGES = {"exllamav2": "exllamav2", "exllamav3": "exllamav3"}


@dataclass(frozen=True)
class State:
    """Of one engine on this machine: `reason` is what keeps it from being used, None where nothing does."""

    version: str | None
    reason: str | None = None


def module(engine: str) -> str:
    """The extension's own name, at the top level."""
    return f"{engine}_ext"


def version(engine: str) -> str | None:
    """Of the package installed; None where none is."""
    try:
        return metadata.version(PACKAGES[engine])
    except metadata.PackageNotFoundError:
        return None


def place(engines: Path, engine: str, capabilities: tuple[str, ...]) -> Path:
    """Where the build for what is installed, and GPUs of `capabilities` such as 9.0, belongs.

    An extension fits one version of its package, of torch with its CUDA, of Python, and the GPUs it was compiled for.
    """
    torch = (cuda.torch_version() or "none").replace("+", "-")
    for_gpus = "-".join(f"sm{each.replace('.', '')}" for each in sorted(set(capabilities)))
    return engines / f"{engine}-{version(engine)}-torch{torch}-{sys.implementation.cache_tag}-{for_gpus}"


def found(engines: Path, engine: str, capabilities: tuple[str, ...]) -> Path | None:
    """The folder of the finished build; None where there is none."""
    folder = place(engines, engine, capabilities)
    return folder if (folder / MARK).is_file() else None


def state(engine: str, data: Path, gpus: tuple[cuda.Gpu, ...]) -> State:
    """What is missing first; reads names and versions alone."""
    installed = version(engine)
    if installed is None:
        return State(None, "not installed; run: pip install 'hearth[cuda]'")
    if not gpus:
        return State(installed, "no CUDA device")
    if (lacking := cuda.torch_lacks()) is not None:
        return State(installed, lacking)
    capabilities = tuple(gpu.capability for gpu in gpus)
    if found(native.home(data), engine, capabilities) is None and importlib.util.find_spec(module(engine)) is None:
        return State(installed, f"extension not built; run: hearth engines build {engine}")
    return State(installed)


def prepare(engine: str, data: Path) -> None:
    """Let this process, a worker, import the extension. Raises RuntimeError with what is missing."""
    gpus = cuda.gpus()
    if (reason := state(engine, data, gpus).reason) is not None:
        raise RuntimeError(f"the engine {engine} cannot be used: {reason}")
    built = found(native.home(data), engine, tuple(gpu.capability for gpu in gpus))
    if built is not None and str(built) not in sys.path:
        sys.path.insert(0, str(built))
