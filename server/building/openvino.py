"""What the openvino engine computes by itself (`paged/compiled/`), compiled by this machine's own C++ compiler.

Headers and libraries are those of OpenVINO's package. A process of its own compiles and another one tries what came
out; this one imports no runtime.
"""

import shutil
import subprocess
import sys
from pathlib import Path

from rich.console import Console

from server.building.llamacpp import absent
from server.building.process import BuildError, remove, run
from server.models import native, openvino_kernel

_TRY_LIMIT_S = 120.0
_COMPILERS = ("g++", "c++", "clang++")
_TRY = """
import sys
from pathlib import Path
from server.models.engines.paged import trial
from server.models.engines.paged.kernel import Kernel
kernel = Kernel(Path(sys.argv[1]))
trial.multiplies(kernel)
trial.decodes(kernel)
print(kernel.registers)
"""


def build(data: Path, limit_s: float, out: Console, err: Console) -> int:
    """Compile it for the release of OpenVINO installed; returns the exit code. A build that ends early leaves nothing
    but its log."""
    try:
        folder = _built(data, limit_s, out)
    except BuildError as error:
        err.print(str(error), markup=False)
        return 1
    except OSError as error:
        err.print(f"openvino: {error.filename or data}: {error.strerror}", markup=False)
        return 1
    out.print(f"openvino: built in {folder}; it is used from the next load on.", markup=False)
    return 0


def asked(data: Path) -> int | None:
    """How wide the registers are that the library computes with, in bits, as a process that tries it says.

    None where there is none, and 0 where it cannot be used.
    """
    engines = native.home(data)
    library = openvino_kernel.found(engines)
    if library is None:
        return None if openvino_kernel.fault(engines) is None else 0
    said = _tried(library)
    return int(said) if said.isdecimal() else 0


def _built(data: Path, limit_s: float, out: Console) -> Path:
    package = openvino_kernel.package()
    if package is None:
        raise BuildError(f"openvino: {absent('openvino')}; what is built goes with it")
    if not openvino_kernel.possible():
        raise BuildError("openvino: what can be built is for Linux on x86-64; elsewhere OpenVINO's own is used")
    engines = native.home(data)
    present = openvino_kernel.found(engines)
    if present is not None and _tried(present).isdecimal():
        return present.parent
    compiler = next((path for name in _COMPILERS if (path := shutil.which(name)) is not None), None)
    if compiler is None:
        raise BuildError("openvino: the build needs a C++ compiler; install one (on Debian: apt-get install g++)")
    place = openvino_kernel.place(engines)
    half = place.with_name(f"{place.name}.building")
    remove(half)
    half.mkdir(parents=True)
    library = half / openvino_kernel.LIBRARY
    out.print("openvino: compiling, which takes less than a minute", markup=False)
    try:
        run("openvino", command(compiler, package, library), None, limit_s, engines / "build-openvino.log", out)
        said = _tried(library)
        if not said.isdecimal():
            raise BuildError(f"openvino: what was built cannot be used, so it was removed: {said}")
        openvino_kernel.mark(library)
        remove(place)
        half.rename(place)
    finally:
        remove(half)
    return place


def command(compiler: str, package: Path, library: Path) -> list[str]:
    """What compiles `library`. Its kernels say themselves which instructions they need, so there is no -march.

    Raises BuildError where the package lacks a library that it is linked with.
    """
    linked = []
    for name in ("libopenvino.so.*", "libtbb.so.*"):
        lies = sorted((package / "libs").glob(name))
        if not lies:
            raise BuildError(f"openvino: {package / 'libs'} has no {name}; install the published package again")
        linked.append(f"-l:{lies[0].name}")
    # No path to them is written into it: the process that loads it has them already, and they are found by name.
    where = [f"-I{package / 'include'}", f"-L{package / 'libs'}"]
    flags = ["-O3", "-std=c++17", "-shared", "-fPIC", "-fvisibility=hidden", "-pthread"]
    sources = map(str, sorted(openvino_kernel.SOURCES.glob("*.cpp")))
    return [compiler, *flags, *where, *sources, "-o", str(library), *linked]


def _tried(library: Path) -> str:
    """Its registers' bits, or else one line on what went wrong."""
    told = [sys.executable, "-c", _TRY, str(library)]
    try:
        done = subprocess.run(told, capture_output=True, text=True, timeout=_TRY_LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        return "it hangs"
    lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
    return lines[-1] if lines else f"its trial ended with {done.returncode}"
