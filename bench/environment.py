"""Environments of peers, each with its own pinned packages, which Hearth does without."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.side import ROOT
from bench.table import CannotRun


def python(peer: str, packages: Sequence[str]) -> Path:
    """The interpreter of `peer`'s environment, made once for each set of `packages` (pip requirements).

    Raises CannotRun where they cannot be installed.
    """
    folder = ROOT / ".bench-venv" / peer
    interpreter = folder / "bin" / "python"
    stamp = folder / "packages.txt"
    wanted = "\n".join(packages)
    if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return interpreter
    print(f"Making an environment for {peer} (some minutes, once) ...", file=sys.stderr, flush=True)
    try:
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        subprocess.run([str(interpreter), "-m", "pip", "install", "--quiet", *packages], check=True)
    except subprocess.CalledProcessError as error:
        raise CannotRun(f"{peer} cannot be measured: {', '.join(packages)} did not install") from error
    stamp.write_text(wanted, encoding="utf-8")
    return interpreter
