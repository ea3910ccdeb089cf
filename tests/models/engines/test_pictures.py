"""Pictures as engines see them: every kind of file, upright, on white, no larger than asked, and what is refused."""

import io

import numpy as np
import pytest
from PIL import Image as Pillow
from PIL import ImageOps

from server.errors import InvalidValue
from server.models.engine import Image
from server.models.engines import pictures
from server.models.engines.pictures import looked_at
from tests.pictures import picture


def seen(data: bytes, most: int = 2048) -> Pillow.Image:
    [told] = looked_at([Image(data, "mark", most, "messages[3]")])
    found = told.decoded()
    assert (found.mode, found.size) == ("RGB", told.size)
    return found


def saved(image: Pillow.Image, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
def test_every_kind_is_read(kind: str) -> None:
    found = seen(picture("red", "blue", kind=kind))
    assert found.size == (96, 64)
    for place, colour in ((8, (255, 0, 0)), (88, (0, 0, 255))):
        assert np.allclose(found.getpixel((place, 32)), colour, atol=4)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("turned", range(1, 9))
def test_a_picture_stands_as_its_camera_was_held(kind: str, turned: int) -> None:
    exif = Pillow.Exif()
    exif[0x0112] = turned
    data = picture("red", "lime", "blue", "white", kind=kind, exif=exif, size=(640, 320))
    upright = ImageOps.exif_transpose(Pillow.open(io.BytesIO(data))).convert("RGB")
    for most, size in ((2048, (640, 320)), (160, (160, 80))):
        found = seen(data, most)
        assert found.size == (size[::-1] if turned > 4 else size)
        expected = np.asarray(upright.resize(found.size, Pillow.Resampling.BICUBIC), np.float32)
        assert np.abs(np.asarray(found, np.float32) - expected).mean() < 4  # upside down it is far above


def test_an_orientation_that_is_none_is_passed_over() -> None:
    for exif in (b"Exif\0\0MM\0*\0\0\0", b"Exif\0\0nonsense"):
        assert seen(picture("red", kind="JPEG", exif=exif)).size == (96, 64)


def test_what_is_transparent_is_white() -> None:
    assert seen(saved(Pillow.new("RGBA", (8, 8), (0, 0, 0, 0)))).getpixel((4, 4)) == (255, 255, 255)
    palette = Pillow.new("P", (8, 8))
    palette.info["transparency"] = 0
    assert seen(saved(palette, "GIF")).getpixel((4, 4)) == (255, 255, 255)


def test_other_depths_keep_their_lightness() -> None:
    assert seen(saved(Pillow.fromarray(np.full((8, 8), 0x8080, np.uint16)))).getpixel((4, 4)) == (128, 128, 128)
    assert seen(saved(Pillow.new("1", (8, 8), 1))).getpixel((4, 4)) == (255, 255, 255)
    red = Pillow.new("RGB", (8, 8), "red").convert("CMYK")
    assert np.allclose(seen(saved(red, "JPEG")).getpixel((4, 4)), (255, 0, 0), atol=4)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_large_one_is_scaled_down_and_a_small_one_is_left(kind: str) -> None:
    wide = picture("red", kind=kind, size=(3000, 1000))
    assert seen(wide, 512).size == (512, 171)
    assert seen(wide, 4096).size == (3000, 1000)


def test_what_cannot_be_read_is_refused_with_its_place() -> None:
    whole = picture("red", "blue")
    bomb = saved(Pillow.new("1", (9_000, 9_000)))
    assert len(bomb) < 15_000
    frames = io.BytesIO()
    Pillow.new("RGB", (8, 8), "red").save(
        frames, "GIF", save_all=True, append_images=[Pillow.new("RGB", (8, 8), "blue")]
    )
    for data, why in (
        (bomb, "9000 x 9000 pixels"),
        (whole[:-60], "cannot be read"),
        (whole[:20], "cannot be read"),
        (b"P6 8 8 255 " + b"\0" * 192, "cut off or corrupt"),  # a kind whose decoder is not tried
        (frames.getvalue(), "moves"),
    ):
        with pytest.raises(InvalidValue) as fault:
            looked_at([Image(data, "mark", 2048, "messages[3]")])
        assert fault.value.param == "messages[3]"
        assert "`messages[3]`" in fault.value.message
        assert why in fault.value.message


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "GIF"])
def test_what_only_its_pixels_tell_is_refused_when_it_is_decoded(kind: str) -> None:
    whole = picture("red", "blue", kind=kind, size=(600, 400))
    with pytest.raises(InvalidValue) as fault:
        seen(whole[: len(whole) // 2])
    assert fault.value.param == "messages[3]"


def test_all_pictures_of_a_request_have_a_bound_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "_TOGETHER", 2 * 96 * 64)
    one = Image(picture("red"), "mark", 2048, "messages[0]")
    assert len(looked_at([one, one])) == 2
    with pytest.raises(InvalidValue, match="pixels together"):
        looked_at([one, one, one])
