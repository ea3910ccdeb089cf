"""Where another server is, and what a model is called there: values of a model with `engine: remote`."""

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import PlainValidator, WithJsonSchema

from config.section import PLACEHOLDER, Outside, shown, text_of, wrong

_EXAMPLE = "https://api.example.com/v1"


def _server_url(value: object) -> str:
    text = text_of(value)
    try:
        parts = urlsplit(text)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound = False
    if not sound or any(character.isspace() or not character.isprintable() for character in text):
        # What stands before an @ may be a password: then nothing of it is repeated.
        plain = "@" not in text and not isinstance(text, Outside)
        guess = f"https://{text}" if plain and "://" not in text and "." in text else None
        raise wrong(f"{shown(text) if plain else 'this value'} is not an http(s) URL such as {_EXAMPLE}", guess)
    if parts.username is not None or parts.password is not None:
        raise wrong("a name or password in the URL would be shown; give the key as `secret`")
    if parts.query or parts.fragment:
        raise wrong(f"should end with the path, such as {_EXAMPLE}, without ? and #")
    return text.rstrip("/")


ServerUrl = Annotated[
    str,
    PlainValidator(_server_url),
    WithJsonSchema({"type": "string", "pattern": rf"^https?://[^\s?#@]+$|{PLACEHOLDER}"}),
]
"""The base URL of an OpenAI-compatible server, without a slash at its end."""


def _remote_id(value: object) -> str:
    text = text_of(value)
    if not 1 <= len(text) <= 256 or not text.isprintable() or text != text.strip():
        raise wrong(f"{shown(text)} is not the id of a model")
    return str(text)


RemoteId = Annotated[
    str, PlainValidator(_remote_id), WithJsonSchema({"type": "string", "minLength": 1, "maxLength": 256})
]
"""A model's id on another server, whatever that server allows in one."""
