"""Pictures for tests: of one colour, or of some in shares, in every kind of file."""

import base64
import io
from typing import Any

from PIL import Image


def picture(*colours: str, kind: str = "PNG", size: tuple[int, int] = (96, 64), **how: Any) -> bytes:
    """A file whose columns have these colours, each as many."""
    made = Image.new("RGB", size)
    width = size[0] // len(colours)
    for at, colour in enumerate(colours):
        made.paste(colour, (at * width, 0, size[0] if at + 1 == len(colours) else (at + 1) * width, size[1]))
    file = io.BytesIO()
    made.save(file, kind, **how)
    return file.getvalue()


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def url(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{encoded(data)}"
