"""llama.cpp compiled for this machine's processor, by pip and the package's own build."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from rich.console import Console

from server.building.process import BuildError, remove, run
from server.models import native

_ASK_LIMIT_S = 60.0
_REACH_LIMIT_S = 30.0

_GRAMMARS_FROM = "https://github.com/guidance-ai/llguidance"
_ASK = "import sys; sys.path[:0] = sys.argv[1:]; import xllamacpp; print(xllamacpp.get_system_info())"
_NO_GRAMMARS = b"llguidance is not enabled"
"""What a llama.cpp without llguidance says when it is given a grammar."""


def absent(package: str) -> str:
    """What is told of an engine whose package is missing."""
    return f"not installed; run: pip install {package}"


def build(data: Path, grammars: bool, limit_s: float, out: Console, err: Console) -> int:
    """Compile the installed xllamacpp's llama.cpp for this processor; returns the exit code.

    pip fetches the package's sources and runs their own build. What it makes belongs to this version, Python and
    processor alone; a build that ends early leaves nothing but its log.
    """
    try:
        folder = _built(data, grammars, limit_s, out)
    except BuildError as error:
        err.print(str(error), markup=False)
        return 1
    except OSError as error:
        err.print(f"llamacpp: {error.filename or data}: {error.strerror}", markup=False)
        return 1
    out.print(f"llamacpp: built for this processor in {folder}; it is used from the next load on.", markup=False)
    return 0


def _built(data: Path, grammars: bool, limit_s: float, out: Console) -> Path:
    version = native.version()
    if version is None:
        raise BuildError(f"llamacpp: {absent(native.PACKAGE)}; its native build is one of the same version")
    engines = native.home(data)
    present = native.found(engines)
    if present is not None and (present.grammars or not grammars):
        return present.folder
    _check_tools(grammars)
    place = native.place(engines, version)
    half = place.with_name(f"{place.name}.building")
    remove(half)
    (half / "tmp").mkdir(parents=True)
    log = engines / "build-llamacpp.log"
    out.print("llamacpp: fetching the sources and what builds them", markup=False)
    try:
        run("llamacpp", _pip(version, half), _environment(half, grammars), limit_s, log, out)
        _unpack(half)
        remove(place)
        half.rename(place)
    finally:
        remove(half)
    return place


def _check_tools(grammars: bool) -> None:
    """Raises BuildError naming everything that is missing."""
    missing = [] if shutil.which("cmake") else ["cmake"]
    if not any(shutil.which(name) for name in ("c++", "g++", "clang++", "cl")):
        missing.append("a C++ compiler")
    if grammars:
        missing += [name for name in ("git", "cargo") if not shutil.which(name)]
    if missing:
        raise BuildError(
            f"llamacpp: the build needs {', '.join(missing)}; install them, then run this again"
            + (" (git and cargo are for grammars: --without-grammars does without them)" if "cargo" in missing else "")
        )
    if grammars and not _reachable():
        raise BuildError(
            f"llamacpp: grammars are compiled from {_GRAMMARS_FROM}, which cannot be reached; --without-grammars "
            "builds a llama.cpp that refuses response_format, tools and grammars"
        )


def _reachable() -> bool:
    command = ["git", "ls-remote", "--exit-code", _GRAMMARS_FROM, "HEAD"]
    quiet = os.environ | {"GIT_TERMINAL_PROMPT": "0"}
    try:
        done = subprocess.run(command, capture_output=True, timeout=_REACH_LIMIT_S, env=quiet, check=False)
    except (subprocess.TimeoutExpired, OSError):
        return False
    return done.returncode == 0


def _pip(version: str, half: Path) -> list[str]:
    wanted = ["--no-deps", "--no-cache-dir", "--no-binary", native.PACKAGE, f"{native.PACKAGE}=={version}"]
    return [sys.executable, "-m", "pip", "wheel", "-v", *wanted, "--wheel-dir", str(half)]


def _environment(half: Path, grammars: bool) -> dict[str, str]:
    """What xllamacpp's own build reads. Sources and objects lie in `half`, so that they go with it."""
    flags = {
        "CMAKE_BUILD_TYPE": "Release",
        "GGML_NATIVE": "ON",
        "GGML_CCACHE": "OFF",
        "LLAMA_LLGUIDANCE": "ON" if grammars else "OFF",
        # It is for fetching models, which is not llama.cpp's office here.
        "LLAMA_BUILD_BORINGSSL": "OFF",
        "LLAMA_USE_PREBUILT_UI": "OFF",
    }
    told = os.environ | {"TMPDIR": str(half / "tmp"), "CMAKE_ARGS": " ".join(f"-D{k}={v}" for k, v in flags.items())}
    if shutil.which("ninja"):
        told.setdefault("CMAKE_GENERATOR", "Ninja")
    return told


def _unpack(half: Path) -> None:
    """The wheel in `half` becomes importable from there, and is tried. Raises BuildError where it cannot be."""
    [wheel] = half.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(half)
    wheel.unlink()
    remove(half / "tmp")
    if system_info([str(half)]) is None:
        raise BuildError("llamacpp: what was built cannot be imported, so it was removed; the wheel stays in use")
    files = [file for file in (half / native.PACKAGE).iterdir() if file.is_file()]
    grammars = not any(_NO_GRAMMARS in file.read_bytes() for file in files)
    (half / native.MARK).write_text(json.dumps({"grammars": grammars}), encoding="utf-8")


def system_info(folders: list[str]) -> str | None:
    """llama.cpp's own words on what it was compiled for; None where it cannot be imported."""
    command = [sys.executable, "-c", _ASK, *folders]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_ASK_LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def instructions(said: str) -> str:
    """The widest vector instructions in llama.cpp's system info."""
    on = set(re.findall(r"(\w+) = 1", said))
    return next((name for name in ("AMX_INT8", "AVX512", "AVX2", "AVX", "SVE", "NEON") if name in on), "generic")
