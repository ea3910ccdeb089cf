"""`hearth engines build openvino`: with a compiler that brings the library finished, so that it takes no time."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from server.building.openvino import command
from server.models import native, openvino_kernel
from tests.models.engines.paged.compiled import library, needs_compiler

ROOT = Path(__file__).parents[2]

pytestmark = needs_compiler

_COMPILER = """#!/bin/sh
echo "compiling $*"
while [ "$1" != -o ]; do shift; done
@EFFECT@
"""


class Machine:
    """A data directory, and the programs a build may find."""

    def __init__(self, folder: Path) -> None:
        self.engines = native.home(folder / "data")
        self._programs = folder / "programs"
        self._programs.mkdir()
        self._recipe = folder / "recipe.yaml"
        self._recipe.write_text(
            f"version: 1\nserver: {{data: {folder / 'data'}}}\nmodels:\n  echo: {{engine: echo}}\n", encoding="utf-8"
        )

    def compiles(self, effect: str) -> None:
        program = self._programs / "g++"
        program.write_text(_COMPILER.replace("@EFFECT@", effect), encoding="utf-8")
        program.chmod(0o755)

    def hearth(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        line = [sys.executable, "-m", "server", "engines", "--recipe", str(self._recipe), *arguments]
        told = os.environ | {"PATH": str(self._programs)}
        return subprocess.run(line, capture_output=True, text=True, timeout=120, env=told, cwd=ROOT, check=False)

    @property
    def state(self) -> str:
        lines = self.hearth().stdout.splitlines()
        return next(line for line in lines if line.startswith("openvino"))


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_it_is_compiled_once_and_then_in_the_table(machine: Machine) -> None:
    assert "`hearth engines build openvino` makes chat faster" in machine.state
    machine.compiles(f"/bin/cp {library()} $2")
    done = machine.hearth("build", "openvino")
    assert done.returncode == 0, done.stderr
    assert "it is used from the next load on" in done.stdout
    place = openvino_kernel.place(machine.engines)
    assert sorted(each.name for each in machine.engines.iterdir()) == ["build-openvino.log", place.name]
    assert openvino_kernel.found(machine.engines) == place / "kernel.so"
    assert "chat by the kernel built on this machine (AVX" in machine.state
    machine.compiles("exit 3")
    assert machine.hearth("build", "openvino").returncode == 0
    (place / "kernel.so").write_bytes(b"cut")
    assert "cannot be used, `hearth engines build openvino` builds it anew" in machine.state
    machine.compiles(f"/bin/cp {library()} $2")
    assert machine.hearth("build", "openvino").returncode == 0
    assert openvino_kernel.found(machine.engines) == place / "kernel.so"


def test_a_folder_that_cannot_be_written_is_told(machine: Machine) -> None:
    machine.compiles("exit 3")
    machine.engines.parent.mkdir()
    machine.engines.write_text("no folder", encoding="utf-8")
    done = machine.hearth("build", "openvino")
    assert done.returncode == 1
    place = openvino_kernel.place(machine.engines)
    assert done.stderr == f"openvino: {place}.building: Not a directory\n"


def test_what_breaks_or_cannot_be_used_leaves_nothing_but_the_log(machine: Machine) -> None:
    machine.compiles("echo 'node.cpp:9: no such header' >&2; exit 1")
    done = machine.hearth("build", "openvino")
    assert done.returncode == 1
    assert "node.cpp:9: no such header" in done.stderr
    assert "the build failed; the whole log is" in done.stderr
    machine.compiles("echo 'not a library' > $2")
    done = machine.hearth("build", "openvino")
    assert done.returncode == 1
    assert "what was built cannot be used, so it was removed" in done.stderr
    assert "kernel.so cannot be loaded" in done.stderr
    assert [each.name for each in machine.engines.iterdir()] == ["build-openvino.log"]


def test_a_machine_without_a_compiler_is_told_what_to_install(machine: Machine) -> None:
    done = machine.hearth("build", "openvino")
    assert done.returncode == 1
    assert done.stderr == "openvino: the build needs a C++ compiler; install one (on Debian: apt-get install g++)\n"


def test_no_single_processor_is_compiled_for() -> None:
    package = openvino_kernel.package()
    assert package is not None
    flags = command("g++", package, Path("kernel.so"))
    assert not [flag for flag in flags if flag.startswith("-m")]
    # A path in the library would be of this machine alone, and of one that may move.
    assert not [flag for flag in flags if "rpath" in flag]
