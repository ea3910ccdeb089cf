"""Where an engine built on this machine lies, and how it is preferred to the package installed; builds nothing.

One folder for each version, Python and processor: what was compiled for another processor may end with SIGILL here.
"""

import hashlib
import json
import platform
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

PACKAGE = "xllamacpp"
MARK = "built.json"
"""Written last: a folder without it is half-built."""

WITHOUT_GRAMMARS = (
    "The llama.cpp built on this machine was built without grammars, so it cannot follow one; "
    "build it with them: hearth engines build llamacpp"
)


@dataclass(frozen=True)
class Built:
    """A finished build. `grammars` says whether its llama.cpp has llguidance."""

    folder: Path
    grammars: bool


def home(data: Path) -> Path:
    """The folder of all engines built, under the data directory."""
    return data / "engines"


def version() -> str | None:
    """Which version of the package is installed, and so which one is built; None where none is."""
    try:
        return metadata.version(PACKAGE)
    except metadata.PackageNotFoundError:
        return None


def place(engines: Path, package_version: str) -> Path:
    """Where that version's build for this Python and this machine belongs."""
    python = f"{sys.implementation.cache_tag}"
    machine = f"{sys.platform}-{platform.machine().lower()}-{_processor()}"
    return engines / f"{PACKAGE}-{package_version}-{python}-{machine}"


def found(engines: Path) -> Built | None:
    """The finished build of the version installed; None where there is none."""
    installed = version()
    if installed is None:
        return None
    folder = place(engines, installed)
    try:
        said = json.loads((folder / MARK).read_bytes())
        return Built(folder, bool(said["grammars"]))
    except (OSError, ValueError, LookupError, TypeError):
        return None


def prefer(built: Built) -> None:
    """Let this process import the package from `built`."""
    if str(built.folder) not in sys.path:
        sys.path.insert(0, str(built.folder))


def _processor() -> str:
    """Eight digits that differ where processors can do different things."""
    said = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    abilities = next((line for line in lines if line.lower().startswith(("flags", "features"))), said)
    return hashlib.sha256(" ".join(sorted(set(abilities.split()))).encode()).hexdigest()[:8]
