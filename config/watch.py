"""Notices that files have changed, by asking for them again and again; knows nothing of what they hold.

No inotify: bind mounts, network drives and Kubernetes' ConfigMaps (a link that is turned to another folder) defeat it.
"""

from collections.abc import Iterable
from pathlib import Path

_Print = dict[Path, tuple[int, int, int] | None]
"""Of each file its time, size and number on the disk; None where it cannot be asked for."""


class Watch:
    """Files as they were seen last. Start with those that have just been read."""

    def __init__(self, files: Iterable[Path]) -> None:
        self._read = self._seen = _print(files)

    def changed(self, files: Iterable[Path]) -> bool:
        """Whether `files` are others than were read, and hold still: the same as when this was last asked.

        So a file that is being written is left alone until it is whole. Tells of each change once. Blocks.
        """
        now = _print(files)
        still, self._seen = now == self._seen, now
        if not still or now == self._read:
            return False
        self._read = now
        return True


def _print(files: Iterable[Path]) -> _Print:
    return {file: _facts(file) for file in files}


def _facts(file: Path) -> tuple[int, int, int] | None:
    try:
        found = file.stat()
    except (OSError, ValueError):
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
