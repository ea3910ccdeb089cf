"""Where a model's chat template is in its files. Some bring two, one of them for conversations with tools.

The places are those of Hugging Face's folders (chat_template.jinja, tokenizer_config.json) and of GGUF's metadata.
"""

from pathlib import Path

from server.models.header import Header, WeightsError

_TOOLS = "tool_use"


def of_folder(folder: Path, told: object) -> str | None:
    """`told` is what tokenizer_config.json has of it: a text, or several by name. A file of its own goes before."""
    file, more = folder / "chat_template.jinja", folder / "additional_chat_templates" / f"{_TOOLS}.jinja"
    if file.exists():
        return _both(_read(file), _read(more) if more.exists() else None)
    if not isinstance(told, list):
        return told if isinstance(told, str) else None
    named = {str(each.get("name")): str(each.get("template")) for each in told if isinstance(each, dict)}
    return _both(named["default"], named.get(_TOOLS)) if "default" in named else None


def of_gguf(header: Header) -> str | None:
    """None where the file has no template."""
    plain, tools = (header.field(f"tokenizer.chat_template{name}") for name in ("", f".{_TOOLS}"))
    return _both(plain, tools if isinstance(tools, str) else None) if isinstance(plain, str) else None


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise WeightsError(f"{file}: {error}") from error


def _both(plain: str, tools: str | None) -> str:
    return plain if tools is None else f"{{% if tools %}}\n{tools}{{% else %}}\n{plain}{{% endif %}}"
