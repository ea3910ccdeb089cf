"""`hearth engines`: the table, and the build against a tiny package of the same name, so that it takes no minutes."""

import io
import os
import subprocess
import sys
import tarfile
from importlib import metadata
from pathlib import Path

import pytest

from server.models import native

ROOT = Path(__file__).parents[2]
VERSION = metadata.version("xllamacpp")

_PYPROJECT = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
_BACKEND = """
import os, sys, time, zipfile
from pathlib import Path
VERSION = "@VERSION@"
def _metadata(name):
    return f"Metadata-Version: 2.1\\nName: xllamacpp\\nVersion: {VERSION}\\n"
def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    Path(os.environ["TMPDIR"], "objects").write_text(os.environ["CMAKE_ARGS"])
    for done in (1, 60, 120):
        print(f"[{done}/120] Building CXX object ggml/ggml.cpp.o", flush=True)
    @EFFECT@
    name = f"xllamacpp-{VERSION}-py3-none-any.whl"
    info = f"xllamacpp-{VERSION}.dist-info"
    with zipfile.ZipFile(Path(wheel_directory, name), "w") as wheel:
        flags = os.environ["CMAKE_ARGS"]
        wheel.writestr("xllamacpp/__init__.py", f"FLAGS = {flags!r}\\n@MODULE@\\n")
        wheel.writestr(f"{info}/METADATA", _metadata("xllamacpp"))
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(f"{info}/RECORD", "")
    return name
"""
_SOUND = "def get_system_info(): return 'CPU : AVX2 = 1 | AVX512 = 1 | '"


class Machine:
    """A data directory, a package index of one archive, and the programs a build may find."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "data"
        self._index = folder / "index"
        self._programs = folder / "programs"
        self._index.mkdir()
        self._programs.mkdir()
        self._recipe = folder / "recipe.yaml"
        self._recipe.write_text(
            f"version: 1\nserver: {{data: {self.data}}}\nmodels:\n  echo: {{engine: echo}}\n", encoding="utf-8"
        )

    def offers(self, effect: str = "pass", module: str = _SOUND) -> None:
        backend = _BACKEND.replace("@VERSION@", VERSION).replace("@EFFECT@", effect).replace("@MODULE@", module)
        about = f"Metadata-Version: 2.1\nName: xllamacpp\nVersion: {VERSION}\n"
        with tarfile.open(self._index / f"xllamacpp-{VERSION}.tar.gz", "w:gz") as archive:
            for name, text in {"pyproject.toml": _PYPROJECT, "backend.py": backend, "PKG-INFO": about}.items():
                entry = tarfile.TarInfo(f"xllamacpp-{VERSION}/{name}")
                entry.size = len(text.encode())
                archive.addfile(entry, io.BytesIO(text.encode()))

    def has(self, *programs: str, ends: int = 0) -> None:
        for name in programs:
            program = self._programs / name
            program.write_text(f"#!/bin/sh\nexit {ends}\n", encoding="utf-8")
            program.chmod(0o755)

    def hearth(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        told = os.environ | {
            "PATH": str(self._programs),
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(self._index),
            "PIP_CONFIG_FILE": os.devnull,
        }
        command = [sys.executable, "-m", "server", "engines", "--recipe", str(self._recipe), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, env=told, cwd=ROOT, check=False)

    @property
    def left(self) -> list[str]:
        folder = native.home(self.data)
        return sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []

    @property
    def place(self) -> Path:
        return native.place(native.home(self.data), VERSION)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_every_engine_stands_in_the_table_with_its_version_and_state(machine: Machine) -> None:
    done = machine.hearth()
    assert done.returncode == 0, done.stderr
    lines = {line.split()[0]: line for line in done.stdout.splitlines()}
    engines = ["openvino", "llamacpp", "transformers", "exllamav2", "exllamav3", "reader", "echo", "remote"]
    assert list(lines) == ["engine", *engines]
    assert metadata.version("openvino") in lines["openvino"]
    assert VERSION in lines["llamacpp"]
    assert "wheel; `hearth engines build llamacpp` makes a native one" in lines["llamacpp"]
    assert "sends the prompt back" in lines["echo"]


def test_a_build_is_kept_for_this_version_and_processor_and_shown(machine: Machine) -> None:
    machine.offers()
    machine.has("cmake", "c++", "git", "cargo")
    done = machine.hearth("build", "llamacpp")
    assert done.returncode == 0, done.stderr
    assert "compiling, 50 %" in done.stdout
    assert machine.left == ["build-llamacpp.log", machine.place.name]
    built = native.found(native.home(machine.data))
    assert built == native.Built(machine.place, grammars=True)
    flags = (machine.place / "xllamacpp" / "__init__.py").read_text(encoding="utf-8")
    assert "-DGGML_NATIVE=ON" in flags
    assert "-DLLAMA_LLGUIDANCE=ON" in flags
    assert "ready: built on this machine (AVX512)" in machine.hearth().stdout


def test_a_second_build_is_not_made(machine: Machine) -> None:
    machine.offers()
    machine.has("cmake", "c++", "git", "cargo")
    assert machine.hearth("build", "llamacpp").returncode == 0
    machine.offers(effect="raise SystemExit(3)")
    again = machine.hearth("build", "llamacpp")
    assert again.returncode == 0
    assert "compiling" not in again.stdout


def test_a_build_without_grammars_says_so(machine: Machine) -> None:
    machine.offers(module=f"{_SOUND}\\n# failed to parse grammar: llguidance is not enabled")
    machine.has("cmake", "g++")
    done = machine.hearth("build", "llamacpp", "--without-grammars")
    assert done.returncode == 0, done.stderr
    assert "-DLLAMA_LLGUIDANCE=OFF" in (machine.place / "xllamacpp" / "__init__.py").read_text(encoding="utf-8")
    assert native.found(native.home(machine.data)) == native.Built(machine.place, grammars=False)
    assert "without grammars" in machine.hearth().stdout


@pytest.mark.parametrize(
    ("programs", "said"),
    [
        ((), "needs cmake, a C++ compiler, git, cargo;"),
        (("cmake", "clang++", "git"), "needs cargo;"),
    ],
)
def test_missing_programs_are_named_in_one_sentence(machine: Machine, programs: tuple[str, ...], said: str) -> None:
    machine.has(*programs)
    done = machine.hearth("build", "llamacpp")
    assert done.returncode == 1
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert machine.left == []


def test_grammars_out_of_reach_are_told_before_anything_is_compiled(machine: Machine) -> None:
    machine.offers()
    machine.has("cmake", "c++", "cargo")
    machine.has("git", ends=128)
    done = machine.hearth("build", "llamacpp")
    assert done.returncode == 1
    assert "cannot be reached" in done.stderr
    assert "--without-grammars" in done.stderr
    assert machine.left == []


@pytest.mark.parametrize(
    ("effect", "module", "arguments", "said"),
    [
        ("sys.exit('ggml.cpp:7: error: no such instruction')", _SOUND, (), "no such instruction"),
        ("pass", "raise ImportError('undefined symbol')", (), "cannot be imported"),
        ("time.sleep(600)", _SOUND, ("--limit", "0.05"), "given up"),
    ],
    ids=["fails", "is broken", "takes too long"],
)
def test_a_build_that_comes_to_nothing_leaves_only_its_log(
    machine: Machine, effect: str, module: str, arguments: tuple[str, ...], said: str
) -> None:
    machine.offers(effect, module)
    machine.has("cmake", "c++", "git", "cargo")
    done = machine.hearth("build", "llamacpp", *arguments)
    assert done.returncode == 1
    assert said in done.stderr
    assert machine.left == ["build-llamacpp.log"]
    assert native.found(native.home(machine.data)) is None


def test_what_an_interrupted_build_left_is_removed_by_the_next(machine: Machine) -> None:
    machine.offers()
    machine.has("cmake", "c++", "git", "cargo")
    (native.home(machine.data) / f"{machine.place.name}.building" / "tmp").mkdir(parents=True)
    assert machine.hearth("build", "llamacpp").returncode == 0
    assert machine.left == ["build-llamacpp.log", machine.place.name]
