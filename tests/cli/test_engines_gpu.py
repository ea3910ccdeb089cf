"""`hearth engines build exllamav2`: against packages of the same names that compile nothing, as no GPU is asked for."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from server.models import native
from server.models.engines.exllama import extension

ROOT = Path(__file__).parents[2]

_TORCH = """
import os, sys, time
from pathlib import Path
def load(name, sources, verbose=False, **options):
    assert verbose, "progress is told"
    room = Path(os.environ["TORCH_EXTENSIONS_DIR"], name)
    assert not (room / "lock").exists()
    room.mkdir()
    (room / "lock").touch()
    for done in (1, 24, 47):
        print(f"[{done}/47] nvcc unit_{done}.cu", flush=True)
    @EFFECT@
    told = {key: os.environ.get(key) for key in ("TORCH_CUDA_ARCH_LIST", "CUDA_HOME", "NVCC_APPEND_FLAGS", "MAX_JOBS")}
    (room / f"{name}.py").write_text(f"TOLD = {told!r}\\n@MODULE@\\n")
    (room / "unit_1.o").touch()
"""
_NVCC = """#!/bin/sh
case "$1" in
  --version) echo "Cuda compilation tools, release @RELEASE@, V@RELEASE@.88" ;;
  *) echo '#$ TOP=@TOP@/bin/..' >&2 ;;
esac
"""


class Machine:
    """A data directory, packages of its own before all others, and the programs a build may find."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "data"
        self._packages = folder / "packages"
        self._programs = folder / "programs"
        self._toolkit = folder / "cuda"
        for each in (self._packages, self._programs, self._toolkit / "bin"):
            each.mkdir(parents=True)
        self._recipe = folder / "recipe.yaml"
        self._recipe.write_text(
            f"version: 1\nserver: {{data: {self.data}}}\nmodels:\n  echo: {{engine: echo}}\n", encoding="utf-8"
        )

    def has_torch(self, version: str = "2.11.0+cu130", effect: str = "pass", module: str = "") -> None:
        self._package("torch", version, "")
        utils = self._packages / "torch" / "utils"
        utils.mkdir(exist_ok=True)
        (utils / "__init__.py").touch()
        text = _TORCH.replace("@EFFECT@", effect).replace("@MODULE@", module)
        (utils / "cpp_extension.py").write_text(text, encoding="utf-8")

    def has_exllama(self, version: str = "0.3.2") -> None:
        self._package("exllamav2", version, "")
        text = 'from torch.utils.cpp_extension import load\nload("exllamav2_ext", [])\n'
        (self._packages / "exllamav2" / "ext.py").write_text(text, encoding="utf-8")

    def _package(self, name: str, version: str, text: str) -> None:
        (self._packages / name).mkdir(exist_ok=True)
        (self._packages / name / "__init__.py").write_text(text, encoding="utf-8")
        for before in self._packages.glob(f"{name}-*.dist-info"):
            (before / "METADATA").unlink()
            before.rmdir()
        info = self._packages / f"{name}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8")

    def has(self, *programs: str, release: str = "13.0") -> None:
        for name in programs:
            text = _NVCC.replace("@RELEASE@", release).replace("@TOP@", str(self._toolkit)) if name == "nvcc" else ""
            (self._programs / name).write_text(text or "#!/bin/sh\n", encoding="utf-8")
            (self._programs / name).chmod(0o755)

    def build(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        told = {key: value for key, value in os.environ.items() if key not in ("CUDA_HOME", "CUDA_PATH")}
        told |= {"PATH": str(self._programs), "PYTHONPATH": str(self._packages)}
        command = [sys.executable, "-m", "server", "engines", "--recipe", str(self._recipe), "build", "exllamav2"]
        return subprocess.run(
            [*command, *arguments], capture_output=True, text=True, timeout=120, env=told, cwd=ROOT, check=False
        )

    @property
    def left(self) -> list[str]:
        folder = native.home(self.data)
        return sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path)
    made.has_torch()
    made.has_exllama()
    return made


def test_a_build_is_kept_under_all_that_it_depends_on(machine: Machine, tmp_path: Path) -> None:
    machine.has("nvcc", "c++", "ninja")
    done = machine.build("--gpu", "9.0", "--gpu", "8.6")
    assert done.returncode == 0, done.stderr
    assert "compiling, 51 %" in done.stdout
    python = sys.implementation.cache_tag
    name = f"exllamav2-0.3.2-torch2.11.0-cu130-{python}-sm86-sm90"
    assert machine.left == ["build-exllamav2.log", name]
    folder = native.home(machine.data) / name
    assert sorted(each.name for each in folder.iterdir() if each.is_file()) == [extension.MARK, "exllamav2_ext.py"]
    told = (folder / "exllamav2_ext.py").read_text(encoding="utf-8")
    assert "'TORCH_CUDA_ARCH_LIST': '8.6;9.0'" in told
    assert f"'CUDA_HOME': '{(tmp_path / 'cuda').resolve()}'" in told
    assert "--compress-mode=size" in told
    machine.has_torch(effect="raise SystemExit(3)")
    again = machine.build("--gpu", "8.6", "--gpu", "9.0")
    assert again.returncode == 0 and "compiling" not in again.stdout


def test_everything_missing_is_named_in_one_sentence(machine: Machine) -> None:
    machine.has_torch("2.13.0+cpu")
    done = machine.build()
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    for said in ("a torch for CUDA", "a CUDA device, or --gpu", "nvcc of the CUDA toolkit", "a C++ compiler"):
        assert said in done.stderr
    assert machine.left == []


def test_a_compiler_of_another_cuda_is_refused(machine: Machine) -> None:
    machine.has("nvcc", "c++", "ninja", release="12.4")
    done = machine.build("--gpu", "9.0")
    assert done.returncode == 1
    assert "nvcc of CUDA 13, which torch 2.11.0+cu130 was built with, not of 12" in done.stderr


@pytest.mark.parametrize(
    ("effect", "module", "arguments", "said"),
    [
        ("sys.exit('unit_1.cu(7): error: no kernel')", "", (), "unit_1.cu(7): error: no kernel"),
        ("pass", "raise ImportError('undefined symbol: _ZN3c10')", (), "undefined symbol: _ZN3c10"),
        ("time.sleep(600)", "", ("--limit", "0.05"), "given up"),
    ],
    ids=["fails", "is broken", "takes too long"],
)
def test_a_build_that_comes_to_nothing_leaves_only_its_log(
    machine: Machine, effect: str, module: str, arguments: tuple[str, ...], said: str
) -> None:
    machine.has_torch(effect=effect, module=module)
    machine.has("nvcc", "c++", "ninja")
    done = machine.build("--gpu", "9.0", *arguments)
    assert done.returncode == 1
    assert said in done.stderr
    assert machine.left == ["build-exllamav2.log"]


def test_a_lock_that_an_interrupted_build_left_is_not_waited_for(machine: Machine) -> None:
    machine.has("nvcc", "c++", "ninja")
    name = f"exllamav2-0.3.2-torch2.11.0-cu130-{sys.implementation.cache_tag}-sm90.building"
    room = native.home(machine.data) / name / "torch" / "exllamav2_ext"
    room.mkdir(parents=True)
    (room / "lock").touch()
    done = machine.build("--gpu", "9.0")
    assert done.returncode == 0, done.stderr
    assert not (native.home(machine.data) / name).exists()
