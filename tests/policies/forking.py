"""Processes forked for one piece of work, from one that has started no thread: none pays for its imports again."""

import os
import sys
import traceback
from collections.abc import Callable


def forked(work: Callable[[], object]) -> int:
    """The id of a process that does this and nothing else; it ends with 0 where it raises nothing."""
    sys.stdout.flush()  # else the child says it too
    if (child := os.fork()) == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:  # noqa: BLE001  (whatever it is, this process ends here)
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)
    return child


def ended(child: int) -> int:
    """How it ended, once it has: its exit code, or the number of a signal, below 0."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
