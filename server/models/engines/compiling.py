"""Where grammars are compiled: on a stack deep enough for any that is taken, so that none ends the worker.

llguidance descends from rule to rule, and ends the process where the stack is used up. The densest grammars (chained
rules of one reference in brackets) use 1 KiB a character at most; what of a stack is not used costs nothing.
"""

import ctypes
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from server.errors import InvalidValue
from server.models.engine import Grammar

NAMES = {"json_schema": "JSON Schema", "regex": "regular expression", "lark": "Lark grammar"}

_LONGEST = {"json_schema": 2**18, "regex": 2**18, "lark": 2**14}
"""Characters. Terminals of Lark that refer to each other take time by the square, 4 s at the limit."""
_STACK_BYTES = 2**29

_ATTRIBUTE_BYTES = 128
"""More than a pthread_attr_t has on any machine."""

_starting = threading.Lock()
"""Python has one stack size for all threads that start."""

Compiled = TypeVar("Compiled")


def compiled(grammar: Grammar, compile_: Callable[[], Compiled]) -> Compiled:
    """What `compile_` returns or raises, called on a deep stack. Raises InvalidValue where the grammar is too long."""
    longest = _LONGEST.get(grammar.kind, 2**14)
    if len(grammar.text) > longest:
        name = NAMES.get(grammar.kind, "grammar")
        raise InvalidValue(f"The {name} has more than {longest} characters.", param=grammar.param)
    with ThreadPoolExecutor(1) as thread:
        with _starting:
            before = threading.stack_size(_STACK_BYTES)
            try:
                found = thread.submit(compile_)
            finally:
                threading.stack_size(before)
        return found.result()


@contextmanager
def deep_threads() -> Iterator[None]:
    """Threads that native code starts while this lasts have a deep stack as well: llama.cpp compiles on its own.

    Only glibc lets a process choose that; with another C library they have what it gives them.
    """
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "pthread_setattr_default_np"):
        yield
        return
    attributes = ctypes.create_string_buffer(_ATTRIBUTE_BYTES)
    before = ctypes.c_size_t()
    libc.pthread_getattr_default_np(attributes)
    libc.pthread_attr_getstacksize(attributes, ctypes.byref(before))
    _start_with(libc, attributes, ctypes.c_size_t(_STACK_BYTES))
    try:
        yield
    finally:
        _start_with(libc, attributes, before)


def _start_with(libc: ctypes.CDLL, attributes: "ctypes.Array[ctypes.c_char]", size: ctypes.c_size_t) -> None:
    libc.pthread_attr_setstacksize(attributes, size)
    libc.pthread_setattr_default_np(attributes)
