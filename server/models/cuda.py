"""The NVIDIA GPUs of this machine, by the driver's own tool, and what of CUDA is installed. Imports no torch."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from importlib import metadata

_ASK_LIMIT_S = 15.0
_FIELDS = ("index", "uuid", "name", "compute_cap", "memory.total", "memory.free")


@dataclass(frozen=True)
class Gpu:
    """`capability` is such as 9.0. Bytes `total` and `free` are None where the driver does not tell, as in a MIG."""

    name: str
    capability: str
    total: int | None = None
    free: int | None = None


def gpus() -> tuple[Gpu, ...]:
    """Those this process may use, CUDA_VISIBLE_DEVICES heeded; empty where there is none or no driver answers."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ()
    command = [tool, f"--query-gpu={','.join(_FIELDS)}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_ASK_LIMIT_S, check=False)
    except (subprocess.TimeoutExpired, OSError):
        return ()
    if done.returncode != 0:
        return ()
    return read(done.stdout, os.environ.get("CUDA_VISIBLE_DEVICES"))


def nvcc() -> str | None:
    """The compiler of the CUDA toolkit: on the PATH, or where CUDA_HOME says the toolkit is."""
    homes = filter(None, (os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH")))
    places = [os.environ.get("PATH", os.defpath), *(f"{home}/bin" for home in homes)]
    return shutil.which("nvcc", path=os.pathsep.join(places))


def read(said: str, visible: str | None) -> tuple[Gpu, ...]:
    """The GPUs of nvidia-smi's table `said` that `visible` names by number or uuid, in its order; None for all."""
    found: list[tuple[str, str, Gpu]] = []
    for line in said.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) == len(_FIELDS):
            index, uuid, name, capability, total, free = cells
            found.append((index, uuid, Gpu(name, capability, _bytes(total), _bytes(free))))
    if visible is None:
        return tuple(gpu for _, _, gpu in found)
    chosen = []
    for name in (each.strip() for each in visible.split(",")):
        matching = [gpu for index, uuid, gpu in found if name == index or (name and uuid.startswith(name))]
        if not matching:  # CUDA itself stops at the first it does not know
            break
        chosen.append(matching[0])
    return tuple(chosen)


def _bytes(mebibytes: str) -> int | None:
    return int(mebibytes) * 2**20 if mebibytes.isdigit() else None


def torch_version() -> str | None:
    """Of the torch that is installed, with its build, such as 2.11.0+cu130; None where none is."""
    try:
        return metadata.version("torch")
    except metadata.PackageNotFoundError:
        return None


def torch_lacks() -> str | None:
    """Why the torch installed cannot compute on a GPU, None where it can: its version says so, or what it asks for."""
    version = torch_version()
    if version is None:
        return "torch is not installed, and it needs a build of torch for CUDA"
    build = version.partition("+")[2]
    required = [name.lower() for name in metadata.requires("torch") or []]
    if build.startswith("cu") or (not build and any(name.startswith(("nvidia-", "cuda-")) for name in required)):
        return None
    return f"torch {version} is a build for the processor, and it needs one for CUDA"
