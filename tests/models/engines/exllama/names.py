"""ExLlamaV3 where its kernels cannot be: they and triton stand in as names, of which nothing computes.

For processes of their own, as what is imported so stays. Some of the names compute once `v3_kernels` is imported.
"""

import importlib.abc
import importlib.machinery
import sys
import types
from typing import Any


class Anything:
    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __call__(self, *given: Any, **named: Any) -> Any:
        return given[0] if len(given) == 1 and callable(given[0]) and not named else Anything()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Anything()

    def __getitem__(self, _: Any) -> Any:
        return Anything()

    def __or__(self, _: Any) -> Any:
        return Anything()

    __ror__ = __or__


KERNELS = Anything()


class _Names(types.ModuleType):
    exllamav3_ext = KERNELS

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Anything()


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if name.split(".")[0] in ("triton", "exllamav3_ext") or name == "exllamav3.ext":
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return _Names(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        pass


def install() -> None:
    """Before anything of the package is imported."""
    sys.meta_path.insert(0, _Finder())
