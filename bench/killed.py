"""Kills processes at random moments and looks at what they leave behind: backups, restores, and moves between tiers.

python -m bench.killed backup|restore|documents|weights FOLDER KILLS prints {"killed": N, "faults": [...]}. Every life
and every look is forked from this process, which starts no thread, so that a kill falls into the work and not into the
imports before it.
"""

import asyncio
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from bench.table import CannotRun, Figure
from config import Recipe, load
from tests.policies.forking import ended, forked

_MB = 2**20
_FILES = 4
_FILE = 8 * _MB


class Killed(NamedTuple):
    """How many processes were killed in the middle, and a sentence for everything that was wrong afterwards."""

    killed: int
    faults: list[str]


class _Trial(Protocol):
    """What is killed. `look` says what is wrong in a folder where a life, number `number`, was cut off."""

    def begin(self, folder: Path) -> None: ...

    def life(self, folder: Path, number: int) -> None: ...

    def look(self, folder: Path, number: int) -> list[str]: ...


def figures(folder: Path, trials: Mapping[str, str], kills: int) -> list[Figure]:
    """Two figures for each of `trials`, by name: its kills, and the faults, of which `trials` says what they are."""
    found = []
    for name, what in trials.items():
        place = folder / f"killed-{name}"
        command = [sys.executable, "-m", "bench.killed", name, str(place), str(kills)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            raise CannotRun(f"{name}: the kills did not run; what they said is above")
        told = Killed(**json.loads(done.stdout.splitlines()[-1]))
        for fault in told.faults:
            print(f"{name}: {fault}", file=sys.stderr)
        found += [
            Figure(f"{name}: killed at random moments", told.killed, "", kills, "at least", digits=0),
            Figure(f"{name}: {what}", len(told.faults), "", 0, digits=0),
        ]
        shutil.rmtree(place)
    return found


# ---- backups --------------------------------------------------------------------------------------------------------


class _Backup:
    """Snapshots of models of which one changes each time; the old ones stay as they were."""

    def begin(self, folder: Path) -> None:
        (folder / "weights").mkdir(parents=True)
        for number in range(_FILES):
            self.change(folder, number, number)
        models = "".join(f"  m{n}: {{engine: llamacpp, source: ./weights/{n}.gguf}}\n" for n in range(_FILES))
        policy = "policies: {backup: {to: ./backups, keep: 3}}\n"
        text = f"version: 1\nserver: {{data: ./data}}\nmodels:\n{models}{policy}"
        (folder / "recipe.yaml").write_text(text, encoding="utf-8")
        for number in range(3):
            self._make(folder, number)

    def change(self, folder: Path, file: int, seed: int) -> None:
        half, data = folder / "half", np.random.default_rng(seed).bytes(_FILE)
        half.write_bytes(data)
        # Before the file is there: a kill may fall in between.
        with (folder / "sums").open("a", encoding="ascii") as known:
            known.write(f"{sha256(data).hexdigest()}\n")
        half.replace(folder / "weights" / f"{file}.gguf")

    def _make(self, folder: Path, number: int) -> None:
        from server.policies.backup.job import Backup

        recipe = self._recipe(folder)
        self.change(folder, number % _FILES, 1000 + number)
        Backup.declared(recipe, _silent).make(recipe)

    def _recipe(self, folder: Path) -> Recipe:
        return load(folder / "recipe.yaml")

    def life(self, folder: Path, number: int) -> None:
        self._make(folder, number + 10)

    def look(self, folder: Path, number: int) -> list[str]:
        from server.policies.backup.job import Backup

        backup = Backup.declared(self._recipe(folder), _silent)
        count, damages = backup.verify()
        told = [f"{each.snapshot}: {each.path}: {each.reason}" for each in damages]
        if count < 3:
            told.append(f"{count} snapshots are left of 3")
        known = set((folder / "sums").read_text(encoding="ascii").split())
        oldest = backup.snapshots()[0]
        out = folder / "out"
        backup.write([file for file in oldest.files if file.path.endswith(".gguf")], lambda file: out / file.path)
        sums = {sha256(file.read_bytes()).hexdigest() for file in out.rglob("*.gguf")}
        if len(sums) != _FILES or not sums <= known:
            told.append(f"{oldest.name} restores files that were never there")
        shutil.rmtree(out)
        return told


class _Restore(_Backup):
    """Restores in place, over newer files, and into a folder."""

    def life(self, folder: Path, number: int) -> None:
        from server.policies.backup.job import Backup
        from server.policies.backup.placing import in_place

        recipe = self._recipe(folder)
        backup = Backup.declared(recipe, _silent)
        snapshot, files = backup.chosen(None, "models")
        in_place(backup, snapshot, files, recipe.server.data)
        backup.write(files, lambda file: folder / "restored" / file.path)

    def look(self, folder: Path, number: int) -> list[str]:
        from server.policies.backup.job import Backup

        backup = Backup.declared(self._recipe(folder), _silent)
        wanted = {file.path: file.sha256 for file in backup.snapshots()[-1].files if file.path.endswith(".gguf")}
        known = set((folder / "sums").read_text(encoding="ascii").split())
        told = []
        for file in (*folder.glob("weights/*.gguf"), *folder.glob("restored/models/*/*.gguf")):
            if sha256(file.read_bytes()).hexdigest() not in known:
                told.append(f"{file.relative_to(folder)} is half a file")
        if len(list(folder.glob("weights/*.gguf"))) != _FILES:
            told.append("weights are missing where they were")
        self.life(folder, number)
        for path, total in wanted.items():
            for file in (folder / "restored" / path, folder / "weights" / path.rpartition("/")[2]):
                if sha256(file.read_bytes()).hexdigest() != total:
                    told.append(f"{file.relative_to(folder)} is not what was kept")
        told += [f"verify: {each.path}: {each.reason}" for each in backup.verify()[1]]
        shutil.rmtree(folder / "restored")
        for file in range(_FILES):
            self.change(folder, file, 5000 + number * _FILES + file)  # newer ones, to be restored over
        return told


# ---- moves between tiers --------------------------------------------------------------------------------------------


class _Documents:
    """Most documents go to cold storage and one comes back, while others change and are deleted."""

    def begin(self, folder: Path) -> None:
        from tests.policies import tiered

        asyncio.run(tiered.fill(folder / "begun"))
        shutil.copytree(folder / "begun", folder / "now")

    def life(self, folder: Path, number: int) -> None:
        from tests.policies import tiered

        asyncio.run(tiered.move(folder / "now"))

    def look(self, folder: Path, number: int) -> list[str]:
        from tests.policies import tiered

        told = asyncio.run(tiered.faults(folder / "now"))
        shutil.rmtree(folder / "now")
        shutil.copytree(folder / "begun", folder / "now")
        return told


class _WeightsMove:
    """Weights go to cold storage and come back."""

    def begin(self, folder: Path) -> None:
        from tests.policies import cold_weights

        cold_weights.filled(folder / "weights", _FILE)
        (folder / "sums").write_text(json.dumps(cold_weights.sums(cold_weights.found(folder / "weights"))))

    def life(self, folder: Path, number: int) -> None:
        from tests.policies import cold_weights

        cold_weights.life(folder)

    def look(self, folder: Path, number: int) -> list[str]:
        from tests.policies import cold_weights

        wanted = json.loads((folder / "sums").read_text())
        told = cold_weights.faults(folder, wanted, brought_first=number % 2 == 0)
        cold_weights.run(folder / "cold", cold_weights.found(folder / "weights"), [])
        return told


_TRIALS: dict[str, Callable[[], _Trial]] = {
    "backup": _Backup,
    "restore": _Restore,
    "documents": _Documents,
    "weights": _WeightsMove,
}


def _silent(sentence: str) -> None:
    """Hears how far it is."""


# ---- killing --------------------------------------------------------------------------------------------------------


def _lived(trial: _Trial, folder: Path, number: int, wait: float) -> bool:
    """Whether a life was killed after so many seconds; False where it ended before."""
    child = forked(lambda: trial.life(folder, number))
    time.sleep(wait)
    os.kill(child, signal.SIGKILL)  # nobody has waited for it, so that it is still this process
    code = ended(child)
    if code not in (0, -signal.SIGKILL):
        raise SystemExit(f"a life ended with {code}")
    return code != 0


def _looked(trial: _Trial, folder: Path, number: int) -> list[str]:
    told = folder / "told.json"
    code = ended(forked(lambda: told.write_text(json.dumps(trial.look(folder, number)), encoding="utf-8")))
    if code:
        return [f"after kill {number}: what was left could not be looked at"]
    return [f"after kill {number}: {each}" for each in json.loads(told.read_text(encoding="utf-8"))]


def main(name: str, folder: Path, kills: int) -> None:
    # Before the first fork, so that no life spends its time on it; none of these starts a thread.
    import tests.policies.cold_weights
    import tests.policies.tiered  # noqa: F401

    trial, chance = _TRIALS[name](), random.Random(0)
    folder.mkdir(parents=True)
    if ended(forked(lambda: trial.begin(folder))):
        raise SystemExit(f"{name} could not begin")
    began = time.perf_counter()
    if ended(forked(lambda: trial.life(folder, 0))):
        raise SystemExit(f"{name} does not work unkilled")
    whole = time.perf_counter() - began
    faults, killed = _looked(trial, folder, 0), 0
    for number in range(1, 4 * kills):
        if killed == kills:
            break
        killed += _lived(trial, folder, number, chance.uniform(0, whole))
        faults += _looked(trial, folder, number)
    print(json.dumps({"killed": killed, "faults": faults}))


if __name__ == "__main__":
    warnings.filterwarnings("ignore", "lancedb fork support")  # nothing has begun when this forks
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
