"""`hearth backup` and `hearth restore`: what is kept, whether it is sound, and putting it back."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import httpx
from pydantic import TypeAdapter, ValidationError
from rich.console import Console
from rich.table import Table
from rich.text import Text

from config import Recipe
from config.bucket import Place
from config.places import Listen
from server.errors import HearthError, InvalidValue
from server.policies.backup import cold_documents, fetching, restoring
from server.policies.backup.ipfs import Gateway
from server.policies.backup.job import Backup
from server.policies.backup.placing import in_place
from server.policies.backup.seal import seal_of
from server.policies.backup.snapshot import Snapshot
from server.policies.backup.sources import STATE
from server.policies.report import Tell

_WIDE = 200
_MB = 10**6
_ASK_S = 2.0
_PLACE: TypeAdapter[Any] = TypeAdapter(Place)


Opened = Callable[[Tell], Backup]
"""Opens a backup that tells how far it is. Raises HearthError where it cannot."""


def of_recipe(recipe: Recipe) -> Opened:
    return partial(Backup.declared, recipe)


def at_place(text: str, endpoint: str | None, key_file: Path | None, cache: Path) -> Opened:
    """The backup in a folder or bucket, wherever its recipe is. Raises InvalidValue for what names neither."""

    def opened(tell: Tell) -> Backup:
        key = None if key_file is None else _key(key_file)
        try:
            where = _PLACE.validate_python({"url": text, "endpoint": endpoint} if "://" in text else text)
        except ValidationError as fault:
            raise InvalidValue(f"{text}: {fault.errors()[0]['msg']}.", param="from") from None
        if isinstance(where, Path) and not where.is_dir():
            raise InvalidValue(f"There is no folder {where} to restore from.", param="from")
        return Backup(where, key, cache, tell)

    return opened


def show(opened: Opened, out: Console, err: Console) -> int:
    """Print the snapshots, oldest first; returns the exit code."""

    def work(backup: Backup) -> int:
        found = backup.snapshots()
        if not found:
            out.print(f"{backup.place} has no snapshot.")
            return 0
        if not out.is_terminal:
            out.width = _WIDE  # for whom reads it by program, a line stays a line
        table = Table("snapshot", "made", "files", "MB", "CID", box=None, pad_edge=False)
        for each in found:
            row = (each.name, f"{each.made.astimezone():%Y-%m-%d %H:%M:%S}", str(len(each.files)))
            table.add_row(*row, f"{each.size / _MB:.1f}", Text(each.cid))
        out.print(table)
        return 0

    return _with(opened, err, work)


def verify(opened: Opened, out: Console, err: Console) -> int:
    """Read and sum every byte of every snapshot; returns 1 where anything is damaged or nothing is there, and names the
    files."""

    def work(backup: Backup) -> int:
        count, damages = backup.verify()
        if not count:
            err.print(f"{backup.place} has no snapshot, so there is nothing to verify.")
            return 1
        for each in damages:
            err.print(f"{each.snapshot}: {each.path or 'the snapshot'}: {each.reason}", markup=False)
        if damages:
            err.print(f"{len(damages)} files are damaged.")
            return 1
        out.print(f"{count} snapshots in {backup.place}: every file was read and has its sum.")
        newest = backup.snapshots()[-1]
        for reason in newest.left_out:
            out.print(f"  not in {newest.name}: {reason}", markup=False)
        return 0

    return _with(opened, err, work)


def restore(
    opened: Opened, listen: Listen, at: str | None, what: str | None, to: Path | None, out: Console, err: Console
) -> int:
    """Write a snapshot, or the part `what` of it, into the folder `to`, or where it was; returns the exit code.

    `listen` is where a server that uses what would be replaced would answer.
    """

    def work(backup: Backup) -> int:
        snapshot, files = backup.chosen(at, what)
        if to is None:
            _refuse_running(listen)
            for sentence in in_place(backup, snapshot, files, Path(snapshot.data)):
                out.print(sentence, markup=False)
        else:
            written, there = backup.write(files, lambda file: to / file.path)
            _told(written, there, to, out)
        out.print(f"Restored from {_named(snapshot)}.", markup=False)
        return 0

    return _with(opened, err, work)


def fetch(
    manifest: Path, gateway: str, key_file: Path | None, what: str | None, to: Path, out: Console, err: Console
) -> int:
    """Write the snapshot whose list is the file `manifest`, as a gateway of IPFS gives it; returns the exit code."""
    try:
        seal = seal_of(None if key_file is None else _key(key_file))
        try:
            snapshot = fetching.listed(manifest.read_bytes(), manifest.name, seal)
        except OSError as fault:
            raise InvalidValue(f"{manifest} cannot be read: {fault.strerror}") from fault
        files = restoring.fitting(snapshot, what)
        with err.status("restore") as status, Gateway(gateway) as source:

            def tell(path: str, size: int) -> None:
                status.update(f"restore: {path}")

            written, there = fetching.fetch(snapshot, files, source, seal, lambda file: to / file.path, tell)
    except HearthError as fault:
        err.print(fault.message, markup=False)
        return 1
    _told(written, there, to, out)
    out.print(f"Restored from {_named(snapshot)}.", markup=False)
    return 0


def _told(written: int, there: int, to: Path, out: Console) -> None:
    """Say what was written into the folder `to`, which becomes a data directory like any other."""
    out.print(f"{written} files written to {to}, {there} were there already.", markup=False)
    back = cold_documents.bring_back(to)
    cold_documents.forget(back, to / STATE)
    for each in back:
        out.print(f"{len(each.documents)} cold documents of {each.collection} lie in its table again.", markup=False)


def new_key(out: Console, err: Console) -> int:
    """Print a new identity, this once; returns the exit code."""
    from pyrage import x25519

    identity = x25519.Identity.generate()
    out.print(str(identity), markup=False)
    err.print("Keep it where the backup is not: without it nothing can be restored.")
    return 0


def _with(opened: Opened, err: Console, work: Callable[[Backup], int]) -> int:
    try:
        with err.status("backup") as status:
            return work(opened(lambda sentence: status.update(f"backup: {sentence}")))
    except HearthError as fault:
        err.print(fault.message, markup=False)
        return 1


def _key(file: Path) -> str:
    """The identity in a file as `age-keygen` writes it, comments and all."""
    try:
        lines = file.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as fault:
        raise InvalidValue(f"The key file {file} cannot be read: {fault}") from fault
    found = [line for line in lines if line.startswith("AGE-SECRET-KEY-1")]
    if len(found) != 1:
        raise InvalidValue(f"The key file {file} holds {len(found)} age identities instead of one.")
    return found[0]


def _named(snapshot: Snapshot) -> str:
    return f"{snapshot.name}, made {snapshot.made.astimezone():%Y-%m-%d %H:%M:%S}"


def _refuse_running(listen: Listen) -> None:
    try:
        httpx.get(f"{listen.url}/healthz", timeout=_ASK_S, trust_env=False)
    except httpx.HTTPError:
        return
    raise InvalidValue(
        f"A server answers at {listen}: stop it, for it uses what would be replaced, or restore --to a folder."
    )
