"""The extensions of ExLlamaV2 and V3 compiled for the GPUs of this machine, by torch and the packages' own lists.

Imports neither of them, nor torch: a process of its own compiles, and another one tries what came out.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console

from server.building.process import BuildError, remove, run
from server.models import cuda, native
from server.models.engines.exllama import extension

_ASK_LIMIT_S = 120.0
_BYTES_A_JOB = 3 * 10**9
"""What the largest of the sources takes to compile, with some to spare."""
_SMALL_FROM = (12, 8)
"""The first CUDA whose compiler makes kernels small: the extension is a fifth of its size with it."""

_COMPILE = """
import importlib, sys
from torch.utils import cpp_extension
usual = cpp_extension.load
def load(*names, **options):
    return usual(*names, **{**options, "verbose": True})
cpp_extension.load = load
importlib.import_module(sys.argv[1] + ".ext")
"""
"""The package's import compiles it; said aloud, so that progress can be read."""
_TRY = "import sys; sys.path.insert(0, sys.argv[2]); import torch; __import__(sys.argv[1])"
_ASK = """
import sys
sys.path[:0] = sys.argv[2:]
if sys.argv[1] == "exllamav2":
    import exllamav2
    from server.models.engines.exllama.attention import register
    print(register()[0])
else:
    import exllamav3
    print("its own kernels")
"""


def asked(engine: str, data: Path, gpus: Sequence[cuda.Gpu]) -> str | None:
    """What computes attention, as a process that imports the engine says; None where it cannot be imported."""
    built = extension.found(native.home(data), engine, tuple(gpu.capability for gpu in gpus))
    command = [sys.executable, "-c", _ASK, engine, *([] if built is None else [str(built)])]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_ASK_LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        return None
    lines = done.stdout.strip().splitlines()
    return lines[-1] if done.returncode == 0 and lines else None


def build(engine: str, data: Path, gpus: tuple[str, ...], limit_s: float, out: Console, err: Console) -> int:
    """Compile the extension of `engine`; returns the exit code.

    `gpus` are compute capabilities such as 9.0, empty for those of this machine's GPUs. What is made belongs to the
    package, torch, Python and GPUs of now; a build that ends early leaves nothing but its log.
    """
    try:
        folder = _built(engine, data, gpus, limit_s, out)
    except BuildError as error:
        err.print(str(error), markup=False)
        return 1
    out.print(f"{engine}: built in {folder}; it is used from the next load on.", markup=False)
    return 0


def _built(engine: str, data: Path, asked_for: tuple[str, ...], limit_s: float, out: Console) -> Path:
    gpus = asked_for or tuple(gpu.capability for gpu in cuda.gpus())
    nvcc = cuda.nvcc()
    if missing := list(_missing(engine, gpus, nvcc)):
        raise BuildError(f"{engine}: the build needs {'; '.join(missing)}")
    assert nvcc is not None
    engines = native.home(data)
    present = extension.found(engines, engine, gpus)
    if present is not None:
        return present
    place = extension.place(engines, engine, gpus)
    half = place.with_name(f"{place.name}.building")
    remove(half)  # a lock that an interrupted build left there would be waited for without end
    (half / "torch").mkdir(parents=True)
    log = engines / f"build-{engine}.log"
    out.print(f"{engine}: compiling for GPUs of compute capability {', '.join(gpus)}", markup=False)
    try:
        command = [sys.executable, "-u", "-c", _COMPILE, engine]
        run(engine, command, _environment(half, gpus, nvcc), limit_s, log, out)
        _keep(engine, half, gpus)
        remove(place)
        half.rename(place)
    finally:
        remove(half)
    return place


def _missing(engine: str, gpus: Sequence[str], nvcc: str | None) -> Iterator[str]:
    """Everything that keeps the extension from being compiled."""
    if extension.version(engine) is None:
        yield f"the package {engine} (run: pip install 'hearth[cuda]')"
    if (lacking := cuda.torch_lacks()) is not None:
        yield f"a torch for CUDA ({lacking})"
    if not gpus:
        yield "a CUDA device, or --gpu with the compute capability of one, such as 9.0"
    if nvcc is None:
        yield "nvcc of the CUDA toolkit, on the PATH or under CUDA_HOME"
    elif (unlike := _unlike(nvcc)) is not None:
        yield unlike
    if not any(shutil.which(name) for name in ("c++", "g++", "clang++")):
        yield "a C++ compiler"
    if not any(shutil.which(name) for name in ("ninja", "ninja-build")) and not _script("ninja").exists():
        yield "ninja (run: pip install ninja)"
    if not (Path(sysconfig.get_paths()["include"]) / "Python.h").exists():
        yield "Python.h of this Python (on Debian: apt-get install python3-dev)"


def _unlike(nvcc: str) -> str | None:
    """Why this compiler does not go with the torch installed: both have to be of the same major version of CUDA."""
    of_torch = re.search(r"\+cu(\d+)\d$", cuda.torch_version() or "")
    of_nvcc = _release(nvcc)
    if of_torch is None or of_nvcc is None or int(of_torch[1]) == of_nvcc[0]:
        return None
    return f"nvcc of CUDA {of_torch[1]}, which torch {cuda.torch_version()} was built with, not of {of_nvcc[0]}"


def _release(nvcc: str) -> tuple[int, int] | None:
    said = _said([nvcc, "--version"])
    found = re.search(r"release (\d+)\.(\d+)", said)
    return None if found is None else (int(found[1]), int(found[2]))


def _toolkit(nvcc: str) -> Path:
    """The folder of the CUDA toolkit. nvcc says it; where it lies does not, where that is a script that calls it."""
    if (told := os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")) is not None:
        return Path(told)
    found = re.search(r"^#\$ TOP=(.+)$", _said([nvcc, "--dryrun", "-x", "cu", os.devnull]), re.MULTILINE)
    return Path(found[1].strip()).resolve() if found else Path(nvcc).resolve().parent.parent


def _said(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_ASK_LIMIT_S, check=False)
    except (subprocess.TimeoutExpired, OSError):
        return ""
    return done.stdout + done.stderr


def _environment(half: Path, gpus: Sequence[str], nvcc: str) -> dict[str, str]:
    """What torch's compilation reads."""
    told = dict(os.environ)
    told |= {
        "TORCH_EXTENSIONS_DIR": str(half / "torch"),
        "TORCH_CUDA_ARCH_LIST": ";".join(sorted(set(gpus))),
        "CUDA_HOME": str(_toolkit(nvcc)),
        # ninja may be one of the scripts of this Python's own environment.
        "PATH": os.pathsep.join([str(_script("")), *filter(None, [os.environ.get("PATH")])]),
    }
    told.setdefault("MAX_JOBS", str(_jobs()))
    # Headers of cuBLAS and its like come with torch where the toolkit is the compiler alone.
    headers = [str(each) for each in sorted(Path(sysconfig.get_paths()["purelib"]).glob("nvidia/cu*/include"))]
    if headers:
        told["CPATH"] = os.pathsep.join([*headers, *filter(None, [os.environ.get("CPATH")])])
    if (_release(nvcc) or (0, 0)) >= _SMALL_FROM:
        told["NVCC_APPEND_FLAGS"] = f"{os.environ.get('NVCC_APPEND_FLAGS', '')} --compress-mode=size".strip()
    return told


def _script(name: str) -> Path:
    return Path(sysconfig.get_paths()["scripts"]) / name


def _jobs() -> int:
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 8 * 10**9
    return max(1, min(os.cpu_count() or 1, memory // _BYTES_A_JOB))


def _keep(engine: str, half: Path, gpus: Sequence[str]) -> None:
    """What was compiled stays in `half`, and nothing else. Raises BuildError where it cannot be imported."""
    name = extension.module(engine)
    made = next(iter(sorted((half / "torch").rglob(f"{name}.*"))), None)
    if made is None:
        raise BuildError(f"{engine}: the build ended without {name}, so nothing was kept")
    made.replace(half / made.name)
    remove(half / "torch")
    command = [sys.executable, "-c", _TRY, name, str(half)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_ASK_LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        raise BuildError(f"{engine}: what was built hangs when it is imported, so it was removed") from None
    if done.returncode != 0:
        why = (done.stderr.strip().splitlines() or ["no reason was given"])[-1]
        raise BuildError(f"{engine}: what was built cannot be imported, so it was removed: {why}")
    (half / extension.MARK).write_text(json.dumps({"gpus": sorted(set(gpus))}), encoding="utf-8")
