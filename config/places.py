"""The places a recipe names: where a server listens, files and folders; relative ones start at the recipe's folder."""

import ipaddress
import os
import re
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import PlainSerializer, PlainValidator, ValidationInfo, WithJsonSchema

from config.section import Origin, Outside, shown, wrong


class Listen(NamedTuple):
    """Where a server listens: a host and a TCP port; port 0 lets the system choose one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """Where it is reached from this machine."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"


_HOST = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})*\.?")
_LISTEN = re.compile(r"(?:\[(?P<six>[^\]]*)\]|(?P<host>[^:\[\]]*)):(?P<port>[0-9]{1,5})")


def _listen(value: object) -> Listen:
    if isinstance(value, Listen):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        raise wrong("should be HOST:PORT", f"127.0.0.1:{value}")
    found = _LISTEN.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise wrong(f"{shown(value)} is not HOST:PORT", _listen_guess(value))
    host = _host(found)
    if int(found["port"]) > 65535:
        raise wrong("a port is a number from 0 to 65535")
    return Listen(host, int(found["port"]))


def _host(found: re.Match[str]) -> str:
    if found["six"] is not None:
        try:
            return str(ipaddress.IPv6Address(found["six"]))
        except ValueError:
            raise wrong("what stands in [] is not an IPv6 address") from None
    host = found["host"] or "0.0.0.0"
    numeric = re.fullmatch(r"[0-9.]+", host)
    if numeric:
        try:
            return str(ipaddress.IPv4Address(host))
        except ValueError:
            raise wrong("the host is not an IPv4 address") from None
    if not _HOST.fullmatch(host):
        raise wrong("the host is neither a name nor an address")
    return host


def _listen_guess(value: object) -> str | None:
    if not isinstance(value, str) or isinstance(value, Outside):
        return None
    if re.fullmatch(r"[0-9]{1,5}", value):
        return f"127.0.0.1:{value}"
    six = re.fullmatch(r"([0-9a-fA-F:]*:):?([0-9]{1,5})", value)
    if six and ":" in six[1]:
        host, _, port = value.rpartition(":")
        return f"[{host}]:{port}"
    return f"{value}:8080" if _HOST.fullmatch(value) else None


ListenAt = Annotated[
    Listen,
    PlainValidator(_listen),
    PlainSerializer(str),
    WithJsonSchema({"type": "string", "pattern": r"^(\[[0-9a-fA-F:.]+\]|[^:\[\]]*):[0-9]{1,5}$|\$\{"}),
]
"""Written 127.0.0.1:8080, [::1]:8080, or :8080 for every interface."""


def absolute(text: str, info: ValidationInfo) -> Path:
    """A path of a recipe: relative ones start at the recipe's folder, ~ is the user's home."""
    if "\0" in text or not text.strip() or text.encode("utf-8", "replace").decode("utf-8") != text:
        raise wrong(f"{shown(text)} is not a path")
    folder = info.context.folder if isinstance(info.context, Origin) else Path.cwd()
    try:
        path = Path(text).expanduser()
    except RuntimeError:
        raise wrong(f"{shown(text)} starts at a home folder that does not exist") from None
    # Lexical, so that a glob and a folder yet to be made resolve like any other path.
    return Path(os.path.normpath(folder / path))


def is_folder(path: Path) -> bool:
    """Whether a folder can be read there; a path that the system refuses is none."""
    try:
        return path.is_dir()
    except OSError:
        return False


def is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        return False


def _folder_to_be(value: object, info: ValidationInfo) -> Path:
    if not isinstance(value, str | Path):
        raise wrong("should be the path of a folder")
    path = absolute(str(value), info)
    if not is_folder(path) and is_file(path):
        raise wrong(f"{shown(value)} is a file, not a folder")
    return path


FolderToBe = Annotated[
    Path, PlainValidator(_folder_to_be), PlainSerializer(str), WithJsonSchema({"type": "string", "minLength": 1})
]
"""A folder that is made when it is missing."""


def _adapter(value: object, info: ValidationInfo) -> Path:
    if not isinstance(value, str | Path):
        raise wrong("should be the path of a folder")
    path = absolute(str(value), info)
    if not is_folder(path):
        raise wrong(f"the folder {shown(value)} does not exist")
    if not is_file(path / "adapter_config.json"):
        raise wrong(f"the folder {shown(value)} has no adapter_config.json")
    return path


Adapter = Annotated[
    Path, PlainValidator(_adapter), PlainSerializer(str), WithJsonSchema({"type": "string", "minLength": 1})
]
"""A folder with a LoRA adapter, as PEFT writes it."""


def _file_to_be(value: object, info: ValidationInfo) -> Path:
    if not isinstance(value, str | Path):
        raise wrong("should be the path of a file")
    path = absolute(str(value), info)
    if is_folder(path):
        raise wrong(f"{shown(value)} is a folder, not a file")
    return path


FileToBe = Annotated[
    Path, PlainValidator(_file_to_be), PlainSerializer(str), WithJsonSchema({"type": "string", "minLength": 1})
]
"""A file that may be missing."""
