"""The kernel of the openvino engine, compiled once for each text of it and kept beside the models of tests."""

import os
import shutil
import sys
from functools import cache
from pathlib import Path

import pytest
from rich.console import Console

from server.building.openvino import build
from server.models import native, openvino_kernel
from server.models.made.build import once

MISSING = not openvino_kernel.possible() or shutil.which("g++") is None

needs_compiler = pytest.mark.skipif(
    MISSING, reason="NOT TESTED: the kernel is compiled by g++, on Linux and x86-64: run apt-get install g++"
)
_LIMIT_S = 300.0
_MODELS = Path(os.environ.get("HEARTH_TEST_MODELS") or Path(__file__).parents[4] / ".models-cache")


@cache
def library() -> Path:
    """The finished library."""
    name = openvino_kernel.place(Path()).name
    once(_MODELS / name, f"{name}, {openvino_kernel.MARK}", _compile)
    found = openvino_kernel.found(native.home(_MODELS / name))
    assert found is not None
    return found


def given(data: Path) -> Path:
    """The same data directory, in which the kernel is as if it had been built there."""
    place = openvino_kernel.place(native.home(data))
    place.mkdir(parents=True, exist_ok=True)
    for name in (openvino_kernel.LIBRARY, openvino_kernel.MARK):
        shutil.copy(library().with_name(name), place)
    return data


def _compile(data: Path) -> None:
    errors = Console(file=sys.stderr)
    assert build(data, _LIMIT_S, Console(quiet=True), errors) == 0
