"""How commands take the recipe: as an option anywhere on the line, and where it is the subject as an argument too."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

DEFAULT = Path("recipes/starter.yaml")

_Command = Callable[..., Any]
_PATH = click.Path(path_type=Path)
_NAMES = ("--recipe", "-r")
_ASIDE = "recipe_option"

option = click.option(*_NAMES, type=_PATH, default=DEFAULT, show_default=True)
"""For commands that are about something else."""


def argument(command: _Command) -> _Command:
    """For commands whose subject the recipe is: RECIPE, or the option."""
    positional = click.argument("recipe", type=_PATH, required=False, callback=_either)
    return positional(aside(command))


def aside(command: _Command) -> _Command:
    """The option alone, for `given` to find."""
    return click.option(
        *_NAMES, _ASIDE, type=_PATH, is_eager=True, expose_value=False, callback=_keep, help="The same as RECIPE."
    )(command)


def _keep(context: click.Context, _: click.Parameter, value: Path | None) -> None:
    context.meta[_ASIDE] = value


def given(context: click.Context, positional: Path | None) -> Path:
    """The recipe that was named, in either way. Raises UsageError where both were."""
    named: Path | None = context.meta.get(_ASIDE)
    if positional is not None and named is not None:
        raise click.UsageError(f"one recipe, not 2: {positional}, {named}", context)
    return positional or named or DEFAULT


def _either(context: click.Context, _: click.Parameter, value: Path | None) -> Path:
    return given(context, value)


class _Group(click.Group):
    """Takes its `--recipe` and `--key` after the name of a command too, as people write it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        own = {name for each in self.params for name in each.opts}
        return super().parse_args(ctx, _first(args, own & {*_NAMES, "--key"}, ctx))


class Commands(click.Group):
    """All of `hearth`."""

    group_class = _Group


def _first(args: list[str], names: set[str], context: click.Context) -> list[str]:
    """`args` with the options of these `names`, each with its value, before all else."""
    front: list[str] = []
    rest: list[str] = []
    left = iter(args)
    for each in left:
        if each == "--":
            rest += [each, *left]
        elif each in names:
            value = next(left, None)
            if value is None:
                raise click.BadOptionUsage(each, f"Option {each!r} requires an argument.", context)
            front += [each, value]
        elif each.partition("=")[0] in names or each[:2] in names:  # --recipe=FILE, -rFILE
            front.append(each)
        else:
            rest.append(each)
    return [*front, *rest]
