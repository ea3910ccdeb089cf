"""Pictures in requests: data URLs to files, and what is refused before anything looks into it."""

import base64
from typing import Any

import pytest

from server.errors import InvalidValue, RequestError, UnsupportedParameter
from server.models import images
from server.models.images import image_of, kind_of
from tests.pictures import encoded, picture, url

PNG = picture("red", size=(4, 4))
WHERE = "messages[1].content[2]"


def part(given: object, **keys: object) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": given, **keys}}


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
def test_the_first_bytes_say_what_a_file_is(kind: str) -> None:
    data = picture("red", kind=kind)
    assert kind_of(data) == f"image/{kind.lower()}"
    assert image_of(part(url(data, "image/jpeg")), WHERE).data == data


def test_a_url_may_be_escaped_and_have_parameters() -> None:
    escaped = encoded(PNG).replace("+", "%2B").replace("/", "%2F").replace("=", "%3D")
    assert image_of(part(f"DATA:image/png;name=a;base64,{escaped}"), WHERE).data == PNG
    assert image_of({"type": "image_url", "image_url": url(PNG)}, WHERE).data == PNG


def test_detail_says_how_large_it_is_seen() -> None:
    sides = [image_of(part(url(PNG), **how), WHERE).most for how in ({}, {"detail": "low"}, {"detail": "high"})]
    assert sides == [2048, 512, 2048]


def test_every_picture_has_a_mark_that_nobody_guesses() -> None:
    one, other = image_of(part(url(PNG)), WHERE), image_of(part(url(PNG)), WHERE)
    assert one.mark != other.mark and len(one.mark) > 24


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ({"type": "image_url"}, InvalidValue),
        ({"type": "image_url", "image_url": {}}, InvalidValue),
        (part(""), InvalidValue),
        (part(7), InvalidValue),
        (part(url(PNG), detail="huge"), InvalidValue),
        (part(url(PNG), detail=["low"]), InvalidValue),
        (part("data:image/png," + "abc"), InvalidValue),
        (part("data:image/png;base64"), InvalidValue),
        (part("data:image/png;base64,***"), InvalidValue),
        (part("data:image/png;base64,é"), InvalidValue),
        (part("data:image/png;base64,"), InvalidValue),
        (part("data:image/png;base64," + base64.b64encode(b"<svg/>").decode()), InvalidValue),
        (part("https://example.com/a.png"), UnsupportedParameter),
        (part("file:///etc/passwd"), UnsupportedParameter),
        (part("/etc/passwd"), UnsupportedParameter),
    ],
)
def test_what_is_no_picture_here_is_refused_by_its_place(given: dict[str, Any], fault: type[RequestError]) -> None:
    with pytest.raises(fault) as refused:
        image_of(given, WHERE)
    assert refused.value.param == WHERE
    assert f"`{WHERE}`" in refused.value.message


def test_what_lies_elsewhere_is_to_be_sent_along() -> None:
    with pytest.raises(UnsupportedParameter, match="send the picture as a data URL"):
        image_of(part("http://169.254.169.254/latest"), WHERE)


def test_a_file_that_is_too_large_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "LARGEST", len(PNG))
    assert image_of(part(url(PNG)), WHERE).data == PNG
    for data in (PNG + b"\0", PNG * 10):
        with pytest.raises(InvalidValue, match="A picture may have"):
            image_of(part(url(data)), WHERE)
