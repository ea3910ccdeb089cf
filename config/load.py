"""A YAML file, the environment and the command line to one Recipe, or every fault at once."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import ValidationError

from config.document import Document, Problem, Unreadable, parse
from config.environment import Overlay
from config.explain import explain
from config.fault import Fault, KeyPath, RecipeError, dotted
from config.key import Key
from config.placeholder import Filler
from config.recipe import Recipe, disagreements
from config.section import Origin
from config.shape import shows

LARGEST = 1024 * 1024

_KEYS_FILE = ("keys file", "mapping", "keys:")


def load(
    path: Path, *, overrides: Mapping[str, object] | None = None, environ: Mapping[str, str] | None = None
) -> Recipe:
    """The recipe in `path`, under the HEARTH__ variables of `environ`, under `overrides` (dotted keys).

    `environ` None means this process's. Raises RecipeError with every fault, those of the keys file included; the
    folders and files that the recipe names have to be there. Reads files, so it blocks.
    """
    environ = os.environ if environ is None else environ
    document = _document(path)
    overlay = Overlay(document.value)
    overlay.environment(environ)
    overlay.command_line(overrides or {})
    file = Path(os.path.normpath(path.absolute()))
    filler = Filler(file.parent, environ)
    tree = filler.fill(overlay.tree)
    recipe, found = _validated(tree, Origin(file, dict(overrides or {}), tuple(filler.files)))
    broken = document.broken | filler.broken | set(leaks := _leaks(tree, filler))
    sound = [problem for problem in found if not _under(broken, problem)]
    problems = [*document.problems, *filler.problems, *leaks.values(), *sound]
    places = _Places(str(path), document.lines, overlay.origins)
    faults = [places.fault(problem) for problem in problems]
    faults += [_fault(stray.origin, None, stray.problem) for stray in overlay.strays]
    if faults or recipe is None:
        raise RecipeError(sorted(dict.fromkeys(faults), key=places.order))
    all_keys(recipe)
    return recipe


def all_keys(recipe: Recipe) -> tuple[Key, ...]:
    """The keys that `recipe` declares and those of its keys file as it is now. Raises RecipeError, and blocks."""
    declared, path = recipe.server.keys, recipe.server.keys_file
    if path is None:
        return declared
    added = keys_in(path)
    taken = {word for key in declared for word in (key.name, key.digest)}
    twice = [number for number, key in enumerate(added) if taken & {key.name, key.digest}]
    if twice:
        problems = [Problem(("keys", number), "server.keys has a key of this name or secret") for number in twice]
        places = _Places(str(path), _document(path, *_KEYS_FILE).lines, {})
        raise RecipeError([places.fault(problem) for problem in problems])
    return (*declared, *added)


def keys_in(path: Path) -> tuple[Key, ...]:
    """The keys of a keys file, `keys:` and a list; none where there is no file. Raises RecipeError, and blocks."""
    try:
        path.stat()
    except FileNotFoundError:
        return ()
    except OSError:
        pass  # reading it says why
    document = _document(path, *_KEYS_FILE)
    value = document.value
    assert isinstance(value, dict), "a document's root is checked when it is read"
    entries = value.get("keys", [])
    recipe, found = _validated({"version": 1, "server": {"keys": entries}}, Origin(path))
    strays = [Problem((name,), "a keys file holds keys and nothing else") for name in value if name != "keys"]
    listed = entries if isinstance(entries, list) else []
    bare = [number for number, entry in enumerate(listed) if isinstance(entry, dict) and "secret" in entry]
    bared = [Problem(("keys", number), "a keys file holds hashes, never secrets") for number in bare]
    problems = [*document.problems, *strays, *bared, *map(_unwrapped, found)]
    if recipe is None or problems:
        places = _Places(str(path), document.lines, {})
        raise RecipeError(sorted(map(places.fault, problems), key=places.order))
    return recipe.server.keys


def _unwrapped(problem: Problem) -> Problem:
    """A problem of `server.keys` as one of a file that begins with `keys`."""
    at = None if problem.at is None else problem.at[1:]
    message = problem.message.replace("server.keys", "keys")
    return replace(problem, path=problem.path[1:], at=at, message=message)


def _document(
    path: Path, what: str = "recipe", sort: str = "mapping of sections", starts: str = "version: 1"
) -> Document:
    try:
        document = parse(_text(path))
        if document.value is None:
            raise Unreadable(f"the {what} is empty; it starts with: {starts}", 1)
        if not isinstance(document.value, dict):
            raise Unreadable(f"a {what} is a {sort}; it starts with: {starts}", 1)
    except Unreadable as error:
        raise RecipeError([_fault(str(path), error.problem.line, error.problem)]) from None
    return document


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
    except FileNotFoundError:
        raise Unreadable("the file does not exist") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "its name is not a path"
        raise Unreadable(f"the file cannot be read: {reason}") from None
    if len(content) > LARGEST:
        raise Unreadable(f"the file is larger than {LARGEST // 1024} KiB")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Unreadable("the file is not UTF-8 text", content.count(b"\n", 0, error.start) + 1) from None


def _validated(tree: object, origin: Origin) -> tuple[Recipe | None, list[Problem]]:
    try:
        return Recipe.model_validate(tree, context=origin), []
    except ValidationError as error:
        return None, [*explain(error.errors(include_url=False), tree), *disagreements(tree)]


def _leaks(tree: object, filler: Filler) -> dict[KeyPath, Problem]:
    """Secret files at keys that everybody sees."""
    message = "a ${file:...} holds a secret and this key is shown to everybody; use ${env:...} for what is none"
    return {path: Problem(path, message) for path in filler.secret if shows(tree, path)}


def _under(broken: set[KeyPath], problem: Problem) -> bool:
    path = problem.path if problem.at is None else problem.at
    return any(path[:length] in broken for length in range(len(path) + 1))


def _fault(file: str, line: int | None, problem: Problem) -> Fault:
    return Fault(file, line, dotted(problem.path), problem.message, problem.suggestion)


@dataclass(frozen=True)
class _Places:
    """Where each key was set: on a line of the file, by a variable, or on the command line."""

    file: str
    lines: Mapping[KeyPath, int]
    origins: Mapping[KeyPath, str]

    def fault(self, problem: Problem) -> Fault:
        if problem.line is not None:
            return _fault(self.file, problem.line, problem)
        for path in _ancestry(problem.path if problem.at is None else problem.at):
            if path in self.origins:
                return _fault(self.origins[path], None, problem)
            if path in self.lines:
                return _fault(self.file, self.lines[path], problem)
        return _fault(self.file, 1, problem)

    def order(self, fault: Fault) -> tuple[bool, str, int]:
        """Down the file first, then the variables and the command line."""
        return fault.file != self.file, fault.file, fault.line or 0


def _ancestry(path: KeyPath) -> Iterator[KeyPath]:
    return (path[:length] for length in range(len(path), -1, -1))
