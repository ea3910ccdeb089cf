"""What a GGUF file of any architecture says of its language model: vocabulary, template and context."""

from dataclasses import dataclass
from pathlib import Path

from server.models import template_files
from server.models.header import Header
from server.models.infill import Infill, infill_tokens

_SPECIAL = {"bos": "bos_token", "eos": "eos_token", "unknown": "unk_token", "padding": "pad_token"}
_TOKENS, _TYPES = "tokenizer.ggml.tokens", "tokenizer.ggml.token_type"
_CONTROL = 3
"""The type of control tokens."""


@dataclass(frozen=True)
class Metadata:
    """`context` is that of training, in tokens; 0 where the file does not say.

    `cached_values` is how many keys and values one token leaves in the memory; 0 where its architecture tells that in
    its own way. `control` are the control tokens by their texts.
    """

    architecture: str
    context: int
    template: str | None
    tokens: list[str]
    special: dict[str, str]
    control: dict[str, int]
    cached_values: int
    prefixed: bool
    """Whether a space is put before a text that the text does not have."""
    infill: Infill | None

    @classmethod
    def read(cls, file: Path) -> "Metadata":
        """Raises ValueError naming the file where it is no whole GGUF file of a language model."""
        header = Header.read(file)
        # llama.cpp takes texts that are no UTF-8, and no token of ours is among them.
        tokens, types = header.field(_TOKENS, errors="replace"), header.field(_TYPES)
        if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
            raise ValueError(f"{file}: lists no tokens, so it is no language model")
        ids = {name: header.field(f"tokenizer.ggml.{key}_token_id") for key, name in _SPECIAL.items()}
        types = types if isinstance(types, list) else []
        return cls(
            header.architecture,
            header.count("%.context_length", 0),
            template_files.of_gguf(header),
            tokens,
            {name: tokens[at] for name, at in ids.items() if isinstance(at, int) and 0 <= at < len(tokens)},
            {text: at for at, (text, type_) in enumerate(zip(tokens, types, strict=False)) if type_ == _CONTROL},
            _cached_values(header),
            bool(header.field("tokenizer.ggml.add_space_prefix", header.field("tokenizer.ggml.model") == "llama")),
            infill_tokens({text: at for at, text in enumerate(tokens)}.get, header.under("tokenizer.ggml")),
        )


def _cached_values(header: Header) -> int:
    try:
        layers, heads = header.count("%.block_count"), header.count("%.attention.head_count")
        size = header.count("%.embedding_length") // heads
        keys = header.count("%.attention.key_length", size)
        values = header.count("%.attention.value_length", size)
        groups = header.field("%.attention.head_count_kv", heads)
        every = sum(groups) if isinstance(groups, list) else int(groups) * layers
        return int(every) * (keys + values)
    except (ValueError, TypeError, ZeroDivisionError):
        return 0
