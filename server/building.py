"""`hearth engines`: which engines there are on this machine, and llama.cpp compiled for its processor.

Imports no engine: what one says of itself, a process of its own is asked for.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import zipfile
from collections import deque
from importlib import metadata
from pathlib import Path

from rich.console import Console
from rich.table import Table

from server.models import native

_ASK_LIMIT_S = 60.0
_REACH_LIMIT_S = 30.0
_LAST_LINES = 30
_WIDE = 200
_STEP = re.compile(r"^\s*\[\s*(?:(?P<done>\d+)/(?P<of>\d+)|(?P<percent>\d+)%)\]")
_EVERY_PERCENT = 5

_GRAMMARS_FROM = "https://github.com/guidance-ai/llguidance"
_ASK = "import sys; sys.path[:0] = sys.argv[1:]; import xllamacpp; print(xllamacpp.get_system_info())"
_NO_GRAMMARS = b"llguidance is not enabled"
"""What a llama.cpp without llguidance says when it is given a grammar."""


# ---- the table ------------------------------------------------------------------------------------------------------


def show(data: Path, out: Console) -> int:
    """Print every engine with its version and, in one line, its state; returns the exit code."""
    table = Table("engine", "version", "state", box=None, pad_edge=False)
    for row in (_openvino(), _llamacpp(data), _transformers(), _reader(), _echo(), _remote()):
        table.add_row(*row)
    if not out.is_terminal:
        out.width = _WIDE  # for whom reads it by program, a line stays a line
    out.print(table)
    return 0


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _openvino() -> tuple[str, str, str]:
    version = _version("openvino")
    state = "ready: chat, embeddings and rerank on the processor" if version else _absent("openvino")
    return "openvino", version or "-", state


def _llamacpp(data: Path) -> tuple[str, str, str]:
    version = native.version()
    if version is None:
        return "llamacpp", "-", _absent(native.PACKAGE)
    built = native.found(native.home(data))
    said = _system_info([] if built is None else [str(built.folder)])
    if said is None:
        return "llamacpp", version, "broken: xllamacpp is installed and cannot be imported"
    if built is not None:
        lacking = "" if built.grammars else ", without grammars"
        return "llamacpp", version, f"ready: built on this machine ({_instructions(said)}{lacking})"
    return (
        "llamacpp",
        version,
        f"ready: {_instructions(said)} wheel; `hearth engines build llamacpp` makes a native one",
    )


def _transformers() -> tuple[str, str, str]:
    missing = [name for name in ("transformers", "torch") if _version(name) is None]
    state = "not installed; run: pip install hearth[transformers]" if missing else "ready: folders of any architecture"
    return "transformers", _version("transformers") or "-", state


def _reader() -> tuple[str, str, str]:
    version = _version("openvino")
    return "reader", version or "-", "ready: quotes the knowledge it is given" if version else _absent("openvino")


def _echo() -> tuple[str, str, str]:
    return "echo", _version("hearth") or "-", "ready: sends the prompt back"


def _remote() -> tuple[str, str, str]:
    return "remote", _version("hearth") or "-", "ready: forwards to other servers"


def _absent(package: str) -> str:
    return f"not installed; run: pip install {package}"


def _system_info(folders: list[str]) -> str | None:
    """llama.cpp's own words on what it was compiled for; None where it cannot be imported."""
    command = [sys.executable, "-c", _ASK, *folders]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_ASK_LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _instructions(said: str) -> str:
    """The widest vector instructions in llama.cpp's system info."""
    on = set(re.findall(r"(\w+) = 1", said))
    return next((name for name in ("AMX_INT8", "AVX512", "AVX2", "AVX", "SVE", "NEON") if name in on), "generic")


# ---- the build ------------------------------------------------------------------------------------------------------


class BuildError(Exception):
    """The build ended without a package; the text says why and what to do."""


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
    out.print(f"llamacpp: built for this processor in {folder}; it is used from the next load on.", markup=False)
    return 0


def _built(data: Path, grammars: bool, limit_s: float, out: Console) -> Path:
    version = native.version()
    if version is None:
        raise BuildError(f"llamacpp: {_absent(native.PACKAGE)}; its native build is one of the same version")
    engines = native.home(data)
    present = native.found(engines)
    if present is not None and (present.grammars or not grammars):
        return present.folder
    _check_tools(grammars)
    place = native.place(engines, version)
    half = place.with_name(f"{place.name}.building")
    _remove(half)
    (half / "tmp").mkdir(parents=True)
    log = engines / "build-llamacpp.log"
    try:
        _run(_pip(version, half), _environment(half, grammars), limit_s, log, out)
        _unpack(half)
        _remove(place)
        half.rename(place)
    finally:
        _remove(half)
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


def _run(command: list[str], environment: dict[str, str], limit_s: float, log: Path, out: Console) -> None:
    """Until it ends, its progress in lines; raises BuildError where it fails or `limit_s` is over."""
    out.print("llamacpp: fetching the sources and what builds them", markup=False)
    process = subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    late = threading.Event()

    def end() -> None:
        late.set()
        _end(process)

    timer = threading.Timer(limit_s, end)
    timer.start()
    try:
        last = _follow(process, log, out)
        code = process.wait()
    finally:
        timer.cancel()
        _end(process)
    if late.is_set():
        raise BuildError(f"llamacpp: not built after {limit_s:.0f} seconds, so it was given up; the log is {log}")
    if code != 0:
        raise BuildError("\n".join([*last, f"llamacpp: the build failed; the whole log is {log}"]))


def _follow(process: "subprocess.Popen[str]", log: Path, out: Console) -> deque[str]:
    """Write the log and tell how far it is; returns the last lines."""
    last: deque[str] = deque(maxlen=_LAST_LINES)
    told = -_EVERY_PERCENT
    assert process.stdout is not None
    with log.open("w", encoding="utf-8") as written:
        for line in process.stdout:
            written.write(line)
            if line.strip():
                last.append(line.rstrip())
            found = _STEP.match(line)
            if found is None:
                continue
            done, of, percent = found.group("done", "of", "percent")
            percent = int(percent) if percent else 100 * int(done) // max(1, int(of))
            if percent >= told + _EVERY_PERCENT:
                told = percent
                out.print(f"llamacpp: compiling, {percent} %", markup=False)
    return last


def _end(process: "subprocess.Popen[str]") -> None:
    """End it and all it started: compilers do not end with pip."""
    if process.poll() is not None:
        return
    if sys.platform == "win32":
        process.kill()
    else:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _unpack(half: Path) -> None:
    """The wheel in `half` becomes importable from there, and is tried. Raises BuildError where it cannot be."""
    [wheel] = half.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(half)
    wheel.unlink()
    _remove(half / "tmp")
    if _system_info([str(half)]) is None:
        raise BuildError("llamacpp: what was built cannot be imported, so it was removed; the wheel stays in use")
    files = [file for file in (half / native.PACKAGE).iterdir() if file.is_file()]
    grammars = not any(_NO_GRAMMARS in file.read_bytes() for file in files)
    (half / native.MARK).write_text(json.dumps({"grammars": grammars}), encoding="utf-8")


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
