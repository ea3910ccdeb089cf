"""The GPUs of a machine, as nvidia-smi tells them."""

import pytest

from server.models.cuda import Gpu, gpus, read

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
