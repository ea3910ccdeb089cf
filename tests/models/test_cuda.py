"""The GPUs of a machine, as nvidia-smi tells them."""

from pathlib import Path

import pytest

from server.models.cuda import Gpu, gpus, nvcc, read

SAID = """\
0, GPU-aa11, NVIDIA H200, 9.0, 143771, 143000
1, GPU-bb22, NVIDIA GeForce RTX 3090, 8.6, 24576, 1000
2, GPU-cc33, NVIDIA A100 MIG, 8.0, [N/A], [N/A]
"""
H200, RTX, MIG = (
    Gpu("NVIDIA H200", "9.0", 143771 * 2**20, 143000 * 2**20),
    *(
        Gpu("NVIDIA GeForce RTX 3090", "8.6", 24576 * 2**20, 1000 * 2**20),
        Gpu("NVIDIA A100 MIG", "8.0"),
    ),
)


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, (H200, RTX, MIG)),
        ("1", (RTX,)),
        ("2,0", (MIG, H200)),
        ("GPU-bb", (RTX,)),
        ("", ()),
        ("-1", ()),
        ("0,9,1", (H200,)),
    ],
)
def test_the_visible_ones_are_told_in_their_order(visible: str | None, expected: tuple[Gpu, ...]) -> None:
    assert read(SAID, visible) == expected


def test_what_is_no_table_is_no_gpu() -> None:
    assert read("NVIDIA-SMI has failed because it could not communicate with the driver.\n", None) == ()


def test_a_machine_without_the_tool_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert gpus() == ()


def test_the_compiler_is_on_the_path_or_where_cuda_home_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "two"):
        tool = tmp_path / name / "bin" / "nvcc"
        tool.parent.mkdir(parents=True)
        tool.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_HOME", raising=False)
    monkeypatch.delenv("CUDA_PATH", raising=False)
    assert nvcc() is None
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "one"))
    assert nvcc() == str(tmp_path / "one" / "bin" / "nvcc")
    monkeypatch.setenv("PATH", str(tmp_path / "two" / "bin"))
    assert nvcc() == str(tmp_path / "two" / "bin" / "nvcc")
