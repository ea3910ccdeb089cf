"""Pictures of requests as engines see them: decoded, upright, without transparency. Workers only.

A file comes from a stranger, so its size is read before its pixels are, and only decoders of the four kinds are tried.
"""

import io
import re
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from PIL import Image as Pillow
from PIL import UnidentifiedImageError

from server.errors import InvalidValue
from server.models.engine import Image

_FORMATS = ("PNG", "JPEG", "WEBP", "GIF")
_PIXELS = 50_000_000
"""Of one picture: 150 MB once it is decoded. The cameras of telephones stay below."""
_TOGETHER = 200_000_000
"""Pixels of all pictures of a request."""

# Pillow's own bound is higher, and it warns below it.
Pillow.MAX_IMAGE_PIXELS = None

_BROKEN = (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError, MemoryError, struct.error)
"""What Pillow raises over files that are cut or corrupt."""

_ORIENTATION = 0x0112
_TURNED = {
    2: Pillow.Transpose.FLIP_LEFT_RIGHT,
    3: Pillow.Transpose.ROTATE_180,
    4: Pillow.Transpose.FLIP_TOP_BOTTOM,
    5: Pillow.Transpose.TRANSPOSE,
    6: Pillow.Transpose.ROTATE_270,
    7: Pillow.Transpose.TRANSVERSE,
    8: Pillow.Transpose.ROTATE_90,
}
"""How a picture is made upright, by EXIF's orientation."""
_QUARTER = (5, 6, 7, 8)


@dataclass(frozen=True)
class Picture:
    """One of a request: its file, and the width and height in pixels that it is seen with."""

    image: Image
    size: tuple[int, int]

    def decoded(self) -> Pillow.Image:
        """In RGB, as its camera was held, on white where it is transparent. Takes up to a second.

        Raises InvalidValue, naming the picture's field, where the file is corrupt.
        """
        with _reading(self.image) as file:
            turned = _turned(file)
            size = self.size[::-1] if turned in _QUARTER else self.size
            file.draft("RGB", size)  # a JPEG is decoded at a half, a fourth ... of its size
            plain = _plain(file)
        if plain.size != size:
            plain = plain.resize(size, Pillow.Resampling.BICUBIC, reducing_gap=2.0)
        return plain.transpose(_TURNED[turned]) if turned in _TURNED else plain


def parted(prompt: str, images: Sequence[Image]) -> tuple[list[str], list[Image]]:
    """A prompt at its pictures' marks: the texts before, between and behind them, and the pictures in that order."""
    by_mark = {image.mark: image for image in images}
    parts = re.split("(" + "|".join(map(re.escape, by_mark)) + ")", prompt)
    return parts[::2], [by_mark[mark] for mark in parts[1::2]]


def looked_at(images: Sequence[Image]) -> list[Picture]:
    """What the heads of the files say; decodes none.

    Raises InvalidValue, naming the picture's field, where one is none, is cut off, moves, or is too large.
    """
    found, pixels = [], 0
    for image in images:
        with _reading(image) as file:
            width, height = file.size
            if width * height > _PIXELS:
                what = f"{width} x {height} pixels; {_PIXELS // 10**6} million are read"
                raise InvalidValue(f"The picture has {what}: `{image.param}`.", param=image.param)
            if getattr(file, "is_animated", False):
                raise InvalidValue(f"The picture moves; send one frame of it: `{image.param}`.", param=image.param)
            seen = _fitted(width, height, image.most)
            found.append(Picture(image, seen[::-1] if _turned(file) in _QUARTER else seen))
            file.verify()  # a PNG's checksums; it decodes nothing
        pixels += width * height
        if pixels > _TOGETHER:
            raise InvalidValue(
                f"The pictures have more than {_TOGETHER // 10**6} million pixels together: `{image.param}`.",
                param=image.param,
            )
    return found


@contextmanager
def _reading(image: Image) -> Iterator[Pillow.Image]:
    try:
        with Pillow.open(io.BytesIO(image.data), formats=_FORMATS) as file:
            yield file
    except InvalidValue:
        raise
    except _BROKEN as error:
        why = "it is cut off or corrupt" if isinstance(error, UnidentifiedImageError) else str(error)
        raise InvalidValue(f"The picture cannot be read: {why}: `{image.param}`.", param=image.param) from error


def _turned(file: Pillow.Image) -> int:
    """EXIF's orientation, of what stands before the pixels; 1, upright, where it cannot be read."""
    exif = Pillow.Exif()
    try:
        exif.load(file.info.get("exif") or b"")
    except _BROKEN:
        return 1
    told = exif.get(_ORIENTATION)
    return told if isinstance(told, int) else 1


def _fitted(width: int, height: int, most: int) -> tuple[int, int]:
    longer = max(width, height)
    if longer <= most:
        return width, height
    return max(1, round(width * most / longer)), max(1, round(height * most / longer))


def _plain(file: Pillow.Image) -> Pillow.Image:
    """The pixels in RGB."""
    if file.mode.startswith("I;16"):
        return file.convert("I").point(lambda value: value / 257).convert("L").convert("RGB")
    if not file.has_transparency_data:
        return file.convert("RGB")
    seen = file.convert("RGBA")
    plain = Pillow.new("RGB", seen.size, "white")
    plain.paste(seen, mask=seen.getchannel("A"))
    return plain
