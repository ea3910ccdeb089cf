"""What native code writes to the process' standard error while it loads: passed on as it comes, and read along.

llama.cpp throws nothing but "failed"; why, it only writes there. Knows no engine's values.
"""

import os
import re
import sys
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

_LINES = 200
_CHUNK = 2**16
_LATE_S = 1.0
"""How long words may come after the failure they tell of: llama.cpp writes its log in a thread of its own."""

_STAMP = re.compile(r"^[\d.]+ [A-Z] ")
_OF_A_TENSOR = re.compile(r"\b(?:gguf_init_\w+|load_all_data): (?P<why>tensor '.+)")
"""Written before the general words, and says more than they."""
_SAYS_WHY = ("error loading model: ", "error: ", "failed to ")


class Words:
    """The last lines that were written."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=_LINES)
        self._said = threading.Event()

    def complaint(self) -> str | None:
        """The line that says why it failed, without its time and its place; None where none comes."""
        self._said.wait(_LATE_S)
        lines = list(self._lines)
        if (tensor := next(filter(None, map(_OF_A_TENSOR.search, lines)), None)) is not None:
            return tensor["why"]
        for sign in _SAYS_WHY:
            for line in lines:
                if sign in line:
                    text = _STAMP.sub("", line)
                    return text.partition(sign)[2] if sign.endswith(": ") else text
        return None

    def read(self, source: int, onward: int) -> None:
        """Until the writing end is closed; closes `source`."""
        rest = b""
        with os.fdopen(source, "rb", buffering=0) as reading:
            while data := reading.read(_CHUNK):
                os.write(onward, data)
                *lines, rest = (rest + data).split(b"\n")
                self._lines.extend(line.decode(errors="replace").strip() for line in lines)
                if any(_SAYS_WHY[0] in line for line in self._lines):
                    self._said.set()


@contextmanager
def listening() -> Iterator[Words]:
    """For the time of the block, file descriptor 2 is read by a thread, which writes everything on to where it led."""
    words = Words()
    sys.stderr.flush()
    onward = os.dup(2)
    source, sink = os.pipe()
    os.dup2(sink, 2)
    os.close(sink)
    thread = threading.Thread(target=words.read, args=(source, onward), name="stderr", daemon=True)
    thread.start()
    try:
        yield words
    finally:
        sys.stderr.flush()
        os.dup2(onward, 2)  # the pipe's last writing end goes with it, so the thread ends
        thread.join()
        os.close(onward)
