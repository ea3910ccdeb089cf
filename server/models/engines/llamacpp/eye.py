"""Pictures in llama.cpp's prompts, which its library mtmd turns into what the model reads, by the model's projector.

In a prompt a picture is one marker, and takes as many tokens as its size says; knows neither threads nor answers.
"""

import base64
import io
import os
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from PIL import Image as Pillow

from server.errors import InvalidValue
from server.models.engine import Image
from server.models.engines.pictures import Picture, looked_at, parted

# llama.cpp makes up a marker of its own, which nobody can ask for, unless it is told one. A prompt's text must not have
# it, so that it is none that anybody could guess.
_MARKER = f"<picture-{secrets.token_hex(16)}>"

_MOST_BYTES = 64 * 2**20
"""Of all files as they go to llama.cpp, whose port takes 100 MB, and base64 makes three bytes four."""

_SIZES = 4096
"""Of how many sizes the tokens are kept in mind."""

TEMPLATE = "{% for message in messages %}{{ message.content }}{% endfor %}"
"""The chat template that shows what it is given as it is: by it, llama.cpp counts the tokens of a picture."""


def announce() -> None:
    """Tell llama.cpp the marker: before it is loaded, in the environment of this process."""
    os.environ["LLAMA_MEDIA_MARKER"] = _MARKER


@dataclass(frozen=True)
class Seen:
    """A prompt with pictures: `text` has a marker for each of `pictures`, in their order. `tokens` count both."""

    text: str
    pictures: list[Picture]
    tokens: int

    def encoded(self) -> dict[str, Any]:
        """The prompt as llama.cpp takes it: decodes the pictures, which takes up to a second for each.

        Raises InvalidValue where one is corrupt, or they are too large together.
        """
        files, size = [], 0
        for picture in self.pictures:
            file = io.BytesIO()
            picture.decoded().save(file, "PNG", compress_level=1)
            size += file.tell()
            if size > _MOST_BYTES:
                raise InvalidValue("The pictures of the conversation are too large together.", param="messages")
            files.append(base64.b64encode(file.getbuffer()).decode())
        return {"prompt_string": self.text, "multimodal_data": files}


class Eye:
    """Reads prompts. `ask` sends a request to llama.cpp's port, `tokenize` tells the ids of a text as it stands.

    `begun` is the text of the token that llama.cpp puts before a prompt by itself, "" for none; `around` is how many
    tokens it puts before and behind.
    """

    def __init__(
        self,
        ask: Callable[[str, dict[str, Any]], Any],
        tokenize: Callable[[str], list[int]],
        begun: str,
        around: int,
    ) -> None:
        self._ask = ask
        self._tokenize = tokenize
        self._begun = begun
        self._around = around
        self._taken = lru_cache(_SIZES)(self._measured)

    def read(self, prompt: str, images: Sequence[Image]) -> Seen:
        """Looks at the heads of the pictures, and counts.

        Raises InvalidValue where a picture cannot be read, or the prompt ends with one.
        """
        texts, in_order = parted(prompt.removeprefix(self._begun), images)
        counts = [len(self._tokenize(text)) if text else 0 for text in texts]
        if not counts[-1]:
            # llama.cpp's server aborts where nothing follows the last picture.
            raise InvalidValue("The prompt ends with a picture; let text follow it.", param=in_order[-1].param)
        pictures = looked_at(in_order)
        tokens = self._around + sum(counts) + sum(self._taken(picture.size) for picture in pictures)
        return Seen(_MARKER.join(texts), pictures, tokens)

    def _measured(self, size: tuple[int, int]) -> int:
        """The tokens of a picture of so many pixels by so many, whatever it shows."""
        file = io.BytesIO()
        Pillow.new("RGB", size).save(file, "PNG", compress_level=1)
        url = f"data:image/png;base64,{base64.b64encode(file.getbuffer()).decode()}"
        content = [{"type": "image_url", "image_url": {"url": url}}]
        body = {"messages": [{"role": "user", "content": content}]}
        return int(self._ask("/v1/chat/completions/input_tokens", body)["input_tokens"]) - self._around
