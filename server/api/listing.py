"""Lists in pages, as OpenAI's are: what follows `after` or precedes `before`, so many at a time, newest first."""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from litestar import Request
from litestar.enums import HttpMethod
from msgspec import UNSET, Meta, UnsetType

from server.errors import InvalidValue, NotFound

T = TypeVar("T", bound=msgspec.Struct)
Row = TypeVar("Row")

READ = [HttpMethod.GET, HttpMethod.HEAD]

Order = Literal["asc", "desc"]


class ListQuery(msgspec.Struct):
    """Which page of a list. `after` and `before` are ids of the list."""

    after: str | UnsetType = UNSET
    before: str | UnsetType = UNSET
    limit: Annotated[int, Meta(ge=1, le=100)] = 20
    order: Order = "desc"


def asked(request: Request[Any, Any, Any], kind: type[T]) -> tuple[T, list[str]]:
    """What stands after the `?` as `kind`, and the names of what else stands there. Raises InvalidValue."""
    known = set(kind.__struct_fields__)
    given: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name in known and name in given:
            raise InvalidValue(f"`{name}` is given twice.", param=name)
        given[name] = value
    return converted({name: given[name] for name in known & given.keys()}, kind), list(given.keys() - known)


def converted(given: Mapping[str, str], kind: type[T]) -> T:
    """Texts, as a query or a form holds them, as `kind`. Raises InvalidValue that names the field."""
    try:
        return msgspec.convert(given, kind, strict=False)
    except msgspec.ValidationError as error:
        message, _, place = str(error).partition(" - at `$.")
        name = place.rstrip("`") or message.partition("required field `")[2].partition("`")[0]
        raise InvalidValue(f"{message}: `{name}`.", param=name) from error


def page(rows: Sequence[Row], query: ListQuery, name: Callable[[Row], str]) -> tuple[list[Row], bool]:
    """One page of `rows`, which are oldest first, and whether more follow. Raises NotFound for an unknown id."""
    ordered = list(rows) if query.order == "asc" else list(reversed(rows))
    names = [name(row) for row in ordered]
    first, last = 0, len(ordered)
    if isinstance(query.after, str):
        first = _place(names, query.after, "after") + 1
    if isinstance(query.before, str):
        last = _place(names, query.before, "before")
        if query.after is UNSET:
            begin = max(first, last - query.limit)
            return ordered[begin:last], begin > first
    return ordered[first:last][: query.limit], last - first > query.limit


def ends(names: Sequence[str]) -> tuple[str | None, str | None]:
    """`first_id` and `last_id` of a page."""
    return (names[0], names[-1]) if names else (None, None)


def _place(names: Sequence[str], each: str, param: str) -> int:
    try:
        return names.index(each)
    except ValueError:
        raise NotFound(f"`{each[:100]}` is not in this list.", param=param) from None
