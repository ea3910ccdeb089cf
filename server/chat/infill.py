"""The prompt that has a model fill in between a prefix and a suffix, as token ids.

As ids and not as text: what stands in the client's code must not be read as control tokens.
"""

import asyncio
from collections.abc import Sequence

import msgspec

from server.errors import InvalidValue, UnsupportedParameter
from server.models.infill import Infill
from server.models.served import Served
from server.runtime import Target

_PROJECT, _CURRENT = "project\n", "current file\n"
"""Names that the clients do not send, and the models expect."""


class File(msgspec.Struct):
    """Another file, or a piece of one, that the model reads before the prefix."""

    text: str
    filename: str = "file"


def infill_of(target: Target, param: str = "suffix") -> Infill:
    """The tokens of the model. Raises UnsupportedParameter, naming `param`, where its vocabulary has none."""
    target.model.dialect()  # raises ModelUnavailable where the model has never been ready
    card = target.model.card
    if card is None or card.infill is None:
        if card is not None and card.task != "chat":
            raise InvalidValue(f"The model `{target.id}` is for {card.task}, not for completions.", param="model")
        raise UnsupportedParameter(
            f"The model `{target.id}` does not fill in before a suffix: its vocabulary has no tokens for that.",
            param=param,
        )
    return card.infill


async def filled(target: Target, before: str | list[int], after: str) -> list[int]:
    """The prompt for what stands between `before` and `after`. Raises as `infill_of`, and as Model.tokenize does."""
    infill = infill_of(target)
    begin, *ids = await _ids(target.model, [before, after])
    return infill.prompt(begin, *ids)


async def filled_with(target: Target, before: str, after: str, extra: Sequence[File], answer: int) -> list[int]:
    """As `filled`, with other files ahead: of these the last ones, as many as fit beside `answer` tokens to come."""
    infill = infill_of(target, "input_suffix")
    card = target.model.card
    assert card is not None, "its tokens stand in its card"
    texts = [before, after, _PROJECT, _CURRENT, *(_shown(file, infill) for file in extra)]
    begin, prefix, suffix, project, current, *files = await _ids(target.model, texts)
    plain = infill.prompt(begin, prefix, suffix)
    if not extra:
        return plain
    head = [*_marked(infill.repository, project)] if infill.repository is not None else []
    tail = [*_marked(infill.file, current)] if infill.file is not None else []
    room = card.context - len(plain) - len(head) - len(tail) - answer
    taken: list[list[int]] = []
    for file in reversed([_marked(infill.file, ids) for ids in files]):
        room -= len(file)
        if room < 1:
            break
        taken.insert(0, file)
    if not taken:
        return plain
    return infill.prompt(begin, prefix, suffix, [*head, *(token for file in taken for token in file), *tail])


def _shown(file: File, infill: Infill) -> str:
    return f"{file.filename}\n{file.text}" if infill.file is not None else f"{file.filename}:\n{file.text}\n\n"


def _marked(token: int | None, ids: list[int]) -> list[int]:
    return ids if token is None else [token, *ids]


async def _ids(model: Served, texts: Sequence[str | list[int]]) -> list[list[int]]:
    """What every prompt begins with, then the ids of each text, in which nothing is read as a control token."""
    asked = [model.tokenize(each, add_special=False, parse_special=False) for each in texts if isinstance(each, str)]
    begin, *told = await asyncio.gather(model.tokenize(""), *asked)
    found = iter(told)
    return [begin.ids, *(next(found).ids if isinstance(each, str) else each for each in texts)]
