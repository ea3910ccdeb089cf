"""What of a message is more than text: which models read it, and how pictures reach those of this machine.

Each picture becomes a mark in its message's text, and travels beside. A chat template then shows the mark where it
shows the text, whatever it knows of pictures, and the engine puts the picture in its place, with whatever the model has
around one.
"""

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import msgspec

from server.errors import InvalidValue
from server.models.engine import Image, Message
from server.models.images import MOST, image_of

TEXT_PARTS = ("text", "refusal")
"""Types of the parts of a message that every model reads."""
IMAGE_PART = "image_url"
"""The type of the parts that hold a picture."""


def readable(part: dict[str, Any], honours: Collection[str]) -> bool:
    """Whether a model of these abilities reads it: other servers' models read whatever those do."""
    kind = part["type"]
    return kind in TEXT_PARTS or "parts" in honours or (kind == IMAGE_PART and "images" in honours)


def placed(messages: Sequence[Message]) -> tuple[list[Message], list[Image]]:
    """The messages with marks in their texts, and the pictures. Raises InvalidValue or UnsupportedParameter, naming
    the part, for one that is none."""
    images: list[Image] = []
    told = [_placed(message, number, images) for number, message in enumerate(messages)]
    if len(images) > MOST:
        param = images[MOST].param
        raise InvalidValue(f"A request may have {MOST} pictures: `{param}` is one more.", param=param)
    return told, images


def shown(prompt: str, images: Sequence[Image]) -> None:
    """Raises InvalidValue, naming the part, for a picture that the chat template does not show, once."""
    for image in images:
        if prompt.count(image.mark) != 1:
            raise InvalidValue(
                f"The model's chat template does not show this message's pictures: `{image.param}`.", param=image.param
            )


def where(message: Message, number: int, at: int) -> str:
    """The client's field of the part `at` of the message `number`."""
    return message.origins[at] if message.origins else f"messages[{number}].content[{at}]"


def _placed(message: Message, number: int, images: list[Image]) -> Message:
    if not message.parts:
        return message
    fresh = [
        image_of(part, where(message, number, at))
        for at, part in enumerate(message.parts)
        if part["type"] == IMAGE_PART
    ]
    images += fresh
    text = "".join(_text(message.parts, iter(fresh)))
    return msgspec.structs.replace(message, text=text, parts=None, origins=[])


def _text(parts: Sequence[dict[str, Any]], images: Iterator[Image]) -> Iterator[str]:
    """Texts apart by a line's end, as of a message without pictures, and marks where they stand."""
    after_text = False
    for part in parts:
        if part["type"] == IMAGE_PART:
            yield next(images).mark
            after_text = False
        else:
            yield "\n" if after_text else ""
            yield part.get("text") or part.get("refusal") or ""
            after_text = True
