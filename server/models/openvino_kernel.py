"""Where what is compiled on this machine for the openvino engine lies; builds nothing and imports no runtime.

One folder for each release of OpenVINO and each text of ours: a library fits the headers it was compiled with. It
chooses between instructions of the processor when it runs, so it belongs to no single one.
"""

import hashlib
import json
import platform
import sys
from importlib import metadata, util
from pathlib import Path

SOURCES = Path(__file__).parent / "engines" / "paged" / "compiled"
"""The folder of its text."""
SHIPPED = Path(__file__).parents[2] / "engines"
"""Where an image of Hearth brings what was compiled for it, beside its code: the data directory is the user's."""
LIBRARY = "kernel.so"
MARK = "built.json"
"""The library's sum, written once it was tried: to load one that was cut since then would end the process."""


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


def mark(library: Path) -> None:
    """Note the sum of a library that was tried, beside it."""
    library.with_name(MARK).write_text(json.dumps({"sha256": _sum(library)}), encoding="utf-8")


def found(engines: Path) -> Path | None:
    """The finished library, as it was when it was tried, of this machine or of the image; None where there is none."""
    return next((library for library in _places(engines) if _fault(library) is None and library.is_file()), None)


def fault(engines: Path) -> str | None:
    """Why the library that is there is not used; None where one is used, or there is none."""
    if found(engines) is not None:
        return None
    return next((why for library in _places(engines) if (why := _fault(library)) is not None), None)


def _places(engines: Path) -> list[Path]:
    return [place(home) / LIBRARY for home in (engines, SHIPPED)]


def _fault(library: Path) -> str | None:
    """None where there is none."""
    try:
        told = json.loads(library.with_name(MARK).read_bytes())["sha256"]
        return None if told == _sum(library) else f"{library} is not as it was built"
    except FileNotFoundError:
        return f"{library} has no {MARK} beside it" if library.exists() else None
    except OSError as error:
        return f"{library} cannot be read: {error.strerror}"
    except (ValueError, LookupError, TypeError):
        return f"{library.with_name(MARK)} does not say how it was built"


def _sum(library: Path) -> str:
    return hashlib.sha256(library.read_bytes()).hexdigest()
