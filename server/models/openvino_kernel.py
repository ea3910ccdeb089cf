"""Where what is compiled on this machine for the openvino engine lies; builds nothing and imports no runtime.

One folder for each release of OpenVINO and each text of ours: a library fits the headers it was compiled with. It
chooses between instructions of the processor when it runs, so it belongs to no single one.
"""

import hashlib
import platform
import sys
from importlib import metadata, util
from pathlib import Path

SOURCES = Path(__file__).parent / "engines" / "paged" / "compiled"
"""The folder of its text."""
LIBRARY = "kernel.so"
"""Moved into its folder last: one that is there was tried."""


def version() -> str | None:
    """Of OpenVINO, the package installed; None where none is."""
    try:
        return metadata.version("openvino")
    except metadata.PackageNotFoundError:
        return None


def package() -> Path | None:
    """The folder of the runtime's own package, with its headers and libraries; None where it is not installed."""
    spec = util.find_spec("openvino")
    return None if spec is None or spec.origin is None else Path(spec.origin).parent


def possible() -> bool:
    """Whether there is a kernel for machines like this one."""
    return sys.platform == "linux" and platform.machine().lower() in ("x86_64", "amd64")


def place(engines: Path) -> Path:
    """The folder for what is installed now."""
    text = hashlib.sha256()
    for file in sorted(SOURCES.glob("*.?pp")):
        text.update(file.read_bytes())
    return engines / f"openvino-{version()}-{sys.platform}-{platform.machine().lower()}-{text.hexdigest()[:8]}"


def found(engines: Path) -> Path | None:
    """The finished library; None where there is none."""
    library = place(engines) / LIBRARY
    return library if library.is_file() else None
