"""Which of the functions offered does what a message asks: nearness in meaning and words to name and description."""

import re
from collections.abc import Generator, Sequence

import numpy as np
from numpy.typing import NDArray

from server.models.engines.reader import values
from server.models.engines.reader.fields import fields, leaves, spaced
from server.models.engines.reader.filling import Reads
from server.models.engines.reader.nearness import shares
from server.models.tool_formats import ToolSpec

ENOUGH = 0.29
"""From here on a function is called that nobody forced. Measured on functions that no bench has."""
_WORDS = 0.35
"""What the share of the message's words that a function has counts, beside the cosine."""
_AT_ONCE = 16
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")

Numbers = NDArray[np.float64]


def said_of(tool: ToolSpec) -> str:
    """Name and the first sentence of the description, as an encoder is to read them."""
    described = _SENTENCE.split(tool.description.strip(), maxsplit=1)[0]
    return f"{spaced(tool.name)}: {described}" if described else spaced(tool.name)


def words_of(tool: ToolSpec) -> str:
    """All words of a function: its name, its description, its parameters'."""
    wanted = leaves(fields(tool.parameters or {}))
    return " ".join([spaced(tool.name), tool.description, *(each.words for each in wanted)])


def plainly(message: str) -> str:
    """`message` with the kind of each address in its place: its letters say nothing of what is asked."""
    for kind, called in _CALLED.items():
        for found in reversed(values.addresses(message, kind)):
            message = f"{message[: found.start]}{called}{message[found.end :]}"
    return message


_CALLED = {"email": "someone", "url": "a web page", "host": "a server", "phone": "a phone number"}


def fitting(message: str, tools: Sequence[ToolSpec], reads: Reads) -> Generator[None, None, Numbers]:
    """How well each of `tools` fits `message`, one number a tool, comparable between messages."""
    message = plainly(message)
    texts = [message, *(said_of(tool) for tool in tools), *(spaced(tool.name) for tool in tools)]
    rows = []
    for low in range(0, len(texts), _AT_ONCE):
        rows.append(reads.vectors(texts[low : low + _AT_ONCE]))
        yield
    meaning = np.concatenate(rows)
    near = meaning[1:] @ meaning[0]
    cosine = np.maximum(near[: len(tools)], 0.9 * near[len(tools) :]).astype(np.float64)
    shared = shares(message, [words_of(tool) for tool in tools], [None] * len(tools))
    fit: Numbers = cosine + _WORDS * shared.own
    return fit
