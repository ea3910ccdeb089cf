"""Starts a program within limits: `launched.py BYTES PROGRAM ARGUMENT...`; 0 bytes stands for no limit of memory.

Run by its path, and imports nothing of ours: what is started shall not find Hearth among its own modules.
"""

import ctypes
import os
import resource
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(argv: list[str]) -> None:
    """Becomes the program; on Linux it ends with whoever started it, however that ends."""
    most = int(argv[1])
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if most:
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.execvp(argv[2], argv[2:])


if __name__ == "__main__":
    main(sys.argv)
