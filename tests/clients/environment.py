"""Makes each client's environment under `.clients`, once for each lock; knows nothing of what it runs there."""

import fcntl
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from tests.clients.client import HERE, Client

ROOT = HERE.parents[1] / ".clients"
_STAMP = ".made-from"
_PATIENCE = 600.0
_OLDEST_NODE = 18


class CannotInstall(Exception):
    """There is no runtime for the client here, or its packages cannot be had. Says why in its last lines."""


def prepared(client: Client) -> list[str]:
    """The command that runs the client's cases, in an environment that fits its lock. Raises CannotInstall."""
    place = installed(client)
    if not client.is_node:
        return [str(place / "bin" / "python"), str(client.folder / "check.py")]
    # Packages of JavaScript are found beside the script that imports them.
    shutil.copy(HERE / "cases.mjs", ROOT)
    return ["node", str(shutil.copy(client.folder / "check.mjs", place))]


def installed(client: Client) -> Path:
    """The folder of the client's environment, made anew where its lock has changed. Raises CannotInstall.

    Several processes may ask at once: one of them makes it.
    """
    place = ROOT / client.name
    ROOT.mkdir(exist_ok=True)
    with (ROOT / f".{client.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        return _current(client, place)


def _current(client: Client, place: Path) -> Path:
    stamp = hashlib.sha256(client.lock.read_bytes() + sys.version.encode()).hexdigest()
    made = place / _STAMP
    if not made.exists() or made.read_text(encoding="utf-8") != stamp:
        print(f"{client.name}: installing {client.package} {client.version} ...", flush=True)
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        (_install_node if client.is_node else _install_python)(client, place)
        made.write_text(stamp, encoding="utf-8")
    return place


def _install_python(client: Client, place: Path) -> None:
    _run([sys.executable, "-m", "venv", "--without-pip", str(place)], place)
    pip = [sys.executable, "-m", "pip", "--python", str(place), "install", "--disable-pip-version-check", "--quiet"]
    # The lock is complete, so nothing is resolved; wheels alone, because a build could take longer than all clients.
    _run([*pip, "--no-deps", "--only-binary", ":all:", "-r", str(client.lock)], place)


def _install_node(client: Client, place: Path) -> None:
    if shutil.which("npm") is None or shutil.which("node") is None:
        raise CannotInstall("there is no node or no npm on this machine")
    told = subprocess.run(["node", "--version"], capture_output=True, text=True, check=False).stdout.strip()
    if not told.startswith("v") or int(told[1:].partition(".")[0]) < _OLDEST_NODE:
        raise CannotInstall(f"node {_OLDEST_NODE} or newer is needed, this machine has {told or 'none that runs'}")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(client.folder / name, place)
    _run(["npm", "ci", "--no-audit", "--no-fund", "--loglevel=error"], place)


def _run(command: list[str], place: Path) -> None:
    try:
        done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=_PATIENCE, check=False)
    except subprocess.TimeoutExpired as error:
        raise CannotInstall(f"{command[0]} took longer than {_PATIENCE:.0f} s") from error
    if done.returncode:
        said = "\n".join((done.stdout + done.stderr).strip().splitlines()[-5:])
        raise CannotInstall(f"{Path(command[0]).name} ended with {done.returncode}:\n{said}")
