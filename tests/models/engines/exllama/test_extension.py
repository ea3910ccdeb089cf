"""What keeps an engine of a GPU from being used, found out without importing it or torch."""

import sys
from importlib import metadata
from pathlib import Path

import pytest

from server.models import cuda, native
from server.models.cuda import Gpu
from server.models.engines.exllama import extension

H200 = Gpu("H200", "9.0")


class Installed:
    """The packages that count as installed, with their versions."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.versions = {"exllamav2": "0.3.2", "exllamav3": "1.6.5", "torch": "2.11.0+cu130"}
        self.requires: list[str] = []

        def version(name: str) -> str:
            if name not in self.versions:
                raise metadata.PackageNotFoundError(name)
            return self.versions[name]

        monkeypatch.setattr(metadata, "version", version)
        monkeypatch.setattr(metadata, "requires", lambda name: self.requires)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Installed:
    monkeypatch.delitem(sys.modules, "exllamav2_ext", raising=False)
    return Installed(monkeypatch)


def _built(data: Path, *capabilities: str) -> Path:
    folder = extension.place(native.home(data), "exllamav2", capabilities)
    folder.mkdir(parents=True)
    (folder / extension.MARK).write_text("{}", encoding="utf-8")
    return folder


def _reason(data: Path, *gpus: Gpu) -> str | None:
    return extension.state("exllamav2", data, gpus).reason


def test_what_is_missing_is_told_one_after_another(installed: Installed, tmp_path: Path) -> None:
    assert _reason(tmp_path, H200) == "extension not built; run: hearth engines build exllamav2"
    installed.versions["torch"] = "2.13.0+cpu"
    assert _reason(tmp_path, H200) == "torch 2.13.0+cpu is a build for the processor, and it needs one for CUDA"
    del installed.versions["torch"]
    assert _reason(tmp_path, H200) == "torch is not installed, and it needs a build of torch for CUDA"
    assert _reason(tmp_path) == "no CUDA device"
    del installed.versions["exllamav2"]
    assert _reason(tmp_path) == "not installed; run: pip install 'hearth[cuda]'"


def test_a_build_counts_for_the_versions_and_gpus_it_was_made_for(installed: Installed, tmp_path: Path) -> None:
    folder = _built(tmp_path, "9.0")
    assert _reason(tmp_path, H200) is None
    assert _reason(tmp_path, H200, H200) is None
    assert "not built" in (_reason(tmp_path, Gpu("RTX", "8.6")) or "")
    (folder / extension.MARK).unlink()
    assert "not built" in (_reason(tmp_path, H200) or "")
    (folder / extension.MARK).write_text("{}", encoding="utf-8")
    installed.versions["torch"] = "2.12.0+cu130"
    assert "not built" in (_reason(tmp_path, H200) or "")


def test_a_torch_without_a_label_is_known_by_what_it_asks_for(installed: Installed) -> None:
    installed.versions["torch"] = "2.13.0"
    assert "build for the processor" in (cuda.torch_lacks() or "")
    installed.requires = ["nvidia-cublas==13.1.0 ; platform_system == 'Linux'"]
    assert cuda.torch_lacks() is None


def test_a_worker_imports_what_was_built_or_says_why_it_cannot(
    installed: Installed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda, "gpus", lambda: (H200,))
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(RuntimeError, match="exllamav2 cannot be used: extension not built; run: hearth engines build"):
        extension.prepare("exllamav2", tmp_path)
    folder = _built(tmp_path, "9.0")
    extension.prepare("exllamav2", tmp_path)
    assert sys.path[0] == str(folder)
