"""A build in a process of its own ends after its limit, with everything that it started."""

from pathlib import Path

import pytest
from rich.console import Console

from server.building.process import BuildError, run

LEAVES_ONE_BEHIND = ["sh", "-c", "echo '[1/2]'; sleep 1000 &"]


def test_what_goes_on_without_the_build_ends_at_the_limit_too(tmp_path: Path) -> None:
    """It holds the build's output open, so that there is something to wait for."""
    with pytest.raises(BuildError, match="not built after 1 seconds"):
        run("echo", LEAVES_ONE_BEHIND, {}, 1.0, tmp_path / "log", Console(quiet=True))
    assert (tmp_path / "log").read_text(encoding="utf-8") == "[1/2]\n"
