"""The table of `hearth engines`: which there are on this machine, with version and state.

Imports no engine: what one says of itself, a process of its own is asked for.
"""

from importlib import metadata
from pathlib import Path

from rich.console import Console
from rich.table import Table

from server.building.exllama import asked
from server.building.llamacpp import absent, instructions, system_info
from server.building.openvino import asked as registers_of
from server.models import cuda, native, openvino_kernel
from server.models.engines.exllama import extension

_WIDE = 200


def show(data: Path, out: Console) -> int:
    """Print every engine with its version and, in one line, its state; returns the exit code."""
    table = Table("engine", "version", "state", box=None, pad_edge=False)
    for row in (_openvino(data), _llamacpp(data), _transformers(), *_on_gpu(data), _reader(), _echo(), _remote()):
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


def _openvino(data: Path) -> tuple[str, str, str]:
    version = openvino_kernel.version()
    if version is None:
        return "openvino", "-", absent("openvino")
    ready = "ready: chat, embeddings and rerank on the processor"
    registers = registers_of(data)
    if registers is None:
        more = "; `hearth engines build openvino` makes chat faster" if openvino_kernel.possible() else ""
    elif registers:
        more = f", chat by the kernel built on this machine ({'AVX512' if registers == 512 else 'AVX2'})"
    else:
        more = "; the kernel built on this machine cannot be used, `hearth engines build openvino` builds it anew"
    return "openvino", version, f"{ready}{more}"


def _llamacpp(data: Path) -> tuple[str, str, str]:
    version = native.version()
    if version is None:
        return "llamacpp", "-", absent(native.PACKAGE)
    built = native.found(native.home(data))
    said = system_info([] if built is None else [str(built.folder)])
    if said is None:
        return "llamacpp", version, "broken: xllamacpp is installed and cannot be imported"
    if built is not None:
        lacking = "" if built.grammars else ", without grammars"
        return "llamacpp", version, f"ready: built on this machine ({instructions(said)}{lacking})"
    return (
        "llamacpp",
        version,
        f"ready: {instructions(said)} wheel; `hearth engines build llamacpp` makes a native one",
    )


def _transformers() -> tuple[str, str, str]:
    missing = [name for name in ("transformers", "torch") if _version(name) is None]
    state = "not installed; run: pip install hearth[transformers]" if missing else "ready: folders of any architecture"
    return "transformers", _version("transformers") or "-", state


def _reader() -> tuple[str, str, str]:
    version = _version("openvino")
    return "reader", version or "-", "ready: quotes the knowledge it is given" if version else absent("openvino")


def _echo() -> tuple[str, str, str]:
    return "echo", _version("hearth") or "-", "ready: sends the prompt back"


def _remote() -> tuple[str, str, str]:
    return "remote", _version("hearth") or "-", "ready: forwards to other servers"


def _on_gpu(data: Path) -> list[tuple[str, str, str]]:
    return [_exllama(engine, data) for engine in extension.PACKAGES]


def _exllama(engine: str, data: Path) -> tuple[str, str, str]:
    gpus = cuda.gpus()
    found = extension.state(engine, data, gpus)
    if found.reason is not None:
        return engine, found.version or "-", found.reason
    said = asked(engine, data, gpus)
    names = ", ".join(dict.fromkeys(gpu.name for gpu in gpus))
    return (
        engine,
        found.version or "-",
        f"ready: on {names}, attention by {said}" if said else "broken: it is built and cannot be imported",
    )
