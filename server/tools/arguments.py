"""Arguments that a model wrote, held against the schema it was shown; every fault in words that it can act on."""

from collections.abc import Mapping
from typing import Any

import jsonschema_rs
import msgspec

_MOST_FAULTS = 5
_LONGEST_FAULT = 300


class Unfit(Exception):
    """What is wrong with the arguments of a call."""


class Fitting:
    """One schema, read once. Raises ValueError where it is none; what it refers to has to stand in itself."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self.schema = schema
        try:
            self._validator = jsonschema_rs.validator_for(dict(schema), offline=True)
        except jsonschema_rs.ValidationError as error:
            raise ValueError(error.message) from None

    def checked(self, arguments: Mapping[str, Any] | str) -> dict[str, Any]:
        """The arguments as an object. Raises Unfit."""
        read = _read(arguments) if isinstance(arguments, str) else dict(arguments)
        faults = [_told(error) for error in self._validator.iter_errors(read)]
        if faults:
            more = f" and {len(faults) - _MOST_FAULTS} more" if len(faults) > _MOST_FAULTS else ""
            raise Unfit("; ".join(faults[:_MOST_FAULTS]) + more)
        return read


def _read(text: str) -> dict[str, Any]:
    try:
        read = msgspec.json.decode(text) if text.strip() else {}  # some models write nothing for none
    except (msgspec.DecodeError, RecursionError) as error:
        raise Unfit(f"they are not JSON: {error}") from None
    if not isinstance(read, dict):
        raise Unfit(f"they are a JSON {type(read).__name__}, not an object")
    return read


def _told(error: jsonschema_rs.ValidationError) -> str:
    where = ".".join(map(str, error.instance_path))
    message = error.message if len(error.message) <= _LONGEST_FAULT else f"{error.message[:_LONGEST_FAULT]}..."
    return f"{where}: {message}" if where else message
