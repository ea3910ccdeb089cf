"""Pictures in bodies, which stand in the document where some model sees them or passes them on."""

from server.api.precise.forms import TEXT, Schema, enum, object_with, optional, ref

_NOTHING: Schema = {"not": {}}
_URL: Schema = {
    "type": "string",
    "format": "data-url",
    "description": "data:image/png;base64,... of a PNG, JPEG, WebP or GIF file.",
}
_BASE64 = object_with({"type": enum("base64"), "media_type": TEXT, "data": {"type": "string", "format": "byte"}})

_SEEN: dict[str, Schema] = {
    "InputPicture": object_with(
        {"type": enum("input_image"), "image_url": _URL}, {"detail": optional(enum("low", "high", "original", "auto"))}
    ),
    "MessagesPicture": {"allOf": [ref("MessagesBlock")], **object_with({"type": enum("image"), "source": _BASE64})},
}


def pictures(*, seen: bool) -> dict[str, Schema]:
    """The parts and blocks that hold a picture, by the names that others refer to them by; nothing where none is
    seen."""
    return _SEEN if seen else dict.fromkeys(_SEEN, _NOTHING)
