"""The servers the cpu bench loads, each with one model called `chat`: Hearth, and llama.cpp's own server."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import yaml

from bench.live import Live, free_port, hearth, process
from bench.side import ROOT
from bench.table import CannotRun
from server.models import native

RECIPE = "cpu.yaml"


@contextmanager
def served(folder: Path, file: Path, **keys: int) -> Iterator[Live]:
    """`hearth serve` of a recipe, written as RECIPE into `folder`; `keys` are further keys of the model."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / RECIPE
    built = native.home(ROOT / "data")
    if built.is_dir() and not (folder / "data").exists():
        # What `hearth engines build` made is used here too.
        (folder / "data").mkdir()
        native.home(folder / "data").symlink_to(built)
    model = {"engine": "openvino", "source": str(file), **keys}
    path.write_text(yaml.safe_dump({"version": 1, "models": {"chat": model}}), encoding="utf-8")
    with hearth(path, folder / "data") as live:
        yield live


@dataclass(frozen=True)
class Llama:
    """llama.cpp's server: a binary of it, or else the one within xllamacpp. `name` says which.

    xllamacpp is imported from the folder `built`, where one was built on this machine.
    """

    name: str
    binary: str | None = None
    built: Path | None = None

    @classmethod
    def found(cls, path: str | None) -> "Llama":
        """`path`, else llama-server of PATH, else what `hearth engines build llamacpp` built, else xllamacpp's wheel.

        Raises CannotRun where `path` is no program.
        """
        binary = shutil.which(path or "llama-server")
        if binary is None and path is not None:
            raise CannotRun(f"--llama-server: {path} is no program")
        if binary is None:
            built = native.found(native.home(ROOT / "data"))
            name = f"xllamacpp {native.version()}"
            return cls(f"{name} built here", built=built.folder) if built else cls(f"{name}, the wheel")
        said = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True)
        lines = (said.stdout + said.stderr).splitlines()
        version = next((line for line in lines if line.startswith("version:")), "version unknown")
        return cls(f"llama-server {version.removeprefix('version:').strip()}", binary)

    @property
    def native(self) -> bool:
        """Whether it was compiled for a processor like this one; a wheel is for any."""
        return self.binary is not None or self.built is not None

    @contextmanager
    def serving(self, folder: Path, file: Path, streams: int, context: int) -> Iterator[Live]:
        """Ready to answer `streams` requests at once, each of `context` tokens at most."""
        port = free_port()
        size, tokens = str(streams), str(streams * context)
        if self.binary is None:
            command = [sys.executable, "-m", "bench.cpu.llama_server", str(file), str(port), size, tokens]
            command += [str(self.built)] if self.built else []
        else:
            # Saving idle prompts to memory costs it time, and no prompt here comes twice.
            command = [self.binary, "-m", str(file), "--port", str(port), "-np", size, "-c", tokens, "--cache-ram", "0"]
        with process(command, port, folder / "llama.log", {}, _healthy) as live:
            yield live


def _healthy(url: str) -> bool:
    with suppress(httpx.TransportError):
        return httpx.get(f"{url}/health", timeout=5, trust_env=False).status_code == 200
    return False
