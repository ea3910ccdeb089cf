"""Text to tokens and tokens to text: a model's tokenizer from tokenizer.json or from a GGUF file's own tables."""

import codecs
import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers

from server.models import template_files
from server.models.engines.sampling.cuts import CUTS
from server.models.families import TOKENIZERS
from server.models.header import Header, WeightsError, read_json
from server.models.infill import Infill, infill_tokens

_NORMAL, _UNKNOWN, _CONTROL, _DECLARED, _UNUSED = 1, 2, 3, 4, 5
_PROBE = "The  year's 2nd test, naïve: 漢字 ☂ 1234567\n\n\tx_y = [0.5] # ÄÖÜ ok"
"""Two tokenizers that cut and merge this alike are taken for one."""
_ENDS = ("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|end_of_text|>", "<|eom_id|>", "</s>")


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer, the bytes of every token, and the tokens that end an answer.

    `pieces[i]` is what token i adds to the text: its bytes, or None for a control token, which adds nothing.
    """

    tokenizer: Tokenizer
    pieces: Sequence[bytes | None]
    ends: frozenset[int]
    template: str | None
    special: dict[str, str] = field(default_factory=dict)
    begins: int | None = None
    """The token a bare text starts with; None where the model wants none. A template writes its own."""
    infill: Infill | None = None

    def encode(self, text: str, *, begin: bool = False, parse_special: bool = True) -> list[int]:
        """`begin` puts the token before it that a bare text starts with; without `parse_special` the texts of control
        tokens are letters like any others."""
        self.tokenizer.encode_special_tokens = not parse_special
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        if begin and self.begins is not None and ids[:1] != [self.begins]:
            return [self.begins, *ids]
        return ids

    def decode(self, tokens: Sequence[int]) -> str:
        """What `tokens` say, control tokens by their texts; what is no UTF-8 becomes U+FFFD."""
        text: str = self.tokenizer.decode(tokens, skip_special_tokens=False)
        return text

    @property
    def control(self) -> dict[str, int]:
        """The control tokens by their texts."""
        added = self.tokenizer.get_added_tokens_decoder()
        return {token.content: place for place, token in added.items() if token.special}

    def bytes_of(self, token: int) -> bytes:
        """What the token is written with, control tokens included."""
        piece = self.pieces[token]
        return (self.tokenizer.id_to_token(token) or "").encode() if piece is None else piece

    def check_same(self, other: "Vocabulary", file: Path) -> None:
        """Raises WeightsError, naming `file` of `other`, where the two do not write and read the same tokens.

        Rows that only pad a vocabulary may be more in one than in the other.
        """
        count = min(len(self.pieces), len(other.pieces))
        same = list(self.pieces[:count]) == list(other.pieces[:count])
        beyond = any(piece is not None for piece in (*self.pieces[count:], *other.pieces[count:]))
        if not same or beyond or self.encode(_PROBE) != other.encode(_PROBE):
            raise WeightsError(f"{file}: a draft needs the tokenizer of the model it guesses for, and has another one")


class Speaking:
    """Tokens of one answer to text, whole characters only; what is no UTF-8 becomes U+FFFD.

    Control tokens add nothing, but for those whose texts are among `markers`.
    """

    def __init__(self, vocabulary: Vocabulary, markers: Iterable[str] = ()) -> None:
        self._pieces = vocabulary.pieces
        found = {vocabulary.tokenizer.token_to_id(marker): marker.encode() for marker in markers}
        self._markers = {token: text for token, text in found.items() if token is not None}
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, token: int) -> str:
        piece = self._pieces[token]
        if piece is None:
            piece = self._markers.get(token, b"")
        return self._decoder.decode(piece)

    def flush(self) -> str:
        """What an unfinished character leaves behind."""
        return self._decoder.decode(b"", True)


def from_folder(folder: Path, size: int) -> Vocabulary:
    """Of a Hugging Face folder; `size` is the model's vocabulary. Raises WeightsError where files do not fit."""
    file = folder / "tokenizer.json"
    try:
        tokenizer = Tokenizer.from_str(file.read_text(encoding="utf-8"))
    except Exception as error:  # the library raises Exception itself
        raise WeightsError(f"{file}: {error}") from error
    config = read_json(folder / "tokenizer_config.json") if (folder / "tokenizer_config.json").exists() else {}
    template = template_files.of_folder(folder, config.get("chat_template"))
    special = {
        name: value["content"] if isinstance(value, dict) else str(value)
        for name in ("bos_token", "eos_token", "pad_token", "unk_token")
        if (value := config.get(name))
    }
    ends = set(_listed(special.get("eos_token"), tokenizer))
    for name in ("generation_config.json", "config.json"):
        if (folder / name).exists():
            told = read_json(folder / name).get("eos_token_id")
            ids = told if isinstance(told, list) else [] if told is None else [told]
            if not all(isinstance(each, int) for each in ids):
                raise WeightsError(f"{folder / name}: eos_token_id should be numbers of tokens, but is {told!r:.60}")
            ends |= set(ids)
    first = tokenizer.encode("a").ids[:1]
    begins = tokenizer.token_to_id(special.get("bos_token", ""))
    begins = begins if first == [begins] else None
    return _made(tokenizer, size, file, ends, template, special, begins, infill_tokens(tokenizer.token_to_id))


def from_gguf(header: Header, size: int) -> Vocabulary:
    """Of a GGUF file; `size` is the model's vocabulary. Raises WeightsError for a tokenizer that is not read here."""
    texts = [str(text) for text in header.field("tokenizer.ggml.tokens", [])]
    kinds = [int(kind) for kind in header.field("tokenizer.ggml.token_type", [])] or [_NORMAL] * len(texts)
    if not texts or len(kinds) != len(texts):
        raise WeightsError(f"{header.file}: tokenizer.ggml.tokens has {len(texts)} entries, their types {len(kinds)}")
    match header.field("tokenizer.ggml.model"):
        case "gpt2":
            tokenizer = _byte_level(header, texts)
        case "llama":
            tokenizer = _sentence_pieces(header, texts, kinds)
        case other:
            raise WeightsError(f"{header.file}: the tokenizer model {other} is not one of {', '.join(TOKENIZERS)}")
    added = [
        AddedToken(text, special=kind != _DECLARED, normalized=False)
        for text, kind in zip(texts, kinds, strict=True)
        if kind in (_UNKNOWN, _CONTROL, _DECLARED)
    ]
    tokenizer.add_tokens(added)
    ends = {token for key in ("eos", "eot", "eom") if (token := _token(header, key)) is not None}
    at = {f"{key}_token": token for key in ("bos", "eos") if (token := _token(header, key)) is not None}
    special = {name: texts[token] for name, token in at.items() if token < len(texts)}
    adds = bool(header.field("tokenizer.ggml.add_bos_token", header.field("tokenizer.ggml.model") == "llama"))
    begins = at.get("bos_token") if adds else None
    if begins is not None and begins >= size:
        raise WeightsError(f"{header.file}: tokenizer.ggml.bos_token_id is {begins}, and the model has {size} tokens")
    template = template_files.of_gguf(header)
    infill = infill_tokens(tokenizer.token_to_id, header.under("tokenizer.ggml"))
    made = _made(tokenizer, size, header.file, ends, template, special, begins, infill)
    # Names that only fill the table say nothing.
    pieces = list(made.pieces)
    for token, kind in enumerate(kinds):
        if kind == _UNUSED:
            pieces[token] = None
    return replace(made, pieces=pieces)


def _token(header: Header, key: str) -> int | None:
    found = header.field(key := f"tokenizer.ggml.{key}_token_id")
    if found is not None and (not isinstance(found, int) or found < 0):
        raise WeightsError(f"{header.file}: {key} should be the number of a token, but is {found!r:.60}")
    return found


def _byte_level(header: Header, texts: list[str]) -> Tokenizer:
    cut = str(header.field("tokenizer.ggml.pre", "default"))
    if cut not in CUTS:
        raise WeightsError(f"{header.file}: the pre-tokenizer {cut} is not one of {', '.join(CUTS)}")
    halves = (str(merge).partition(" ") for merge in header.field("tokenizer.ggml.merges", []))
    merges = [(left, right) for left, _, right in halves]
    ranks = {text: token for token, text in enumerate(texts)}
    try:
        tokenizer = Tokenizer(models.BPE(vocab=ranks, merges=merges, ignore_merges=CUTS[cut].whole))
    except Exception as error:  # the library raises Exception itself
        raise WeightsError(f"{header.file}: the tokenizer's merges do not fit its tokens: {error}") from error
    tokenizer.pre_tokenizer = CUTS[cut].pre_tokenizer()
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _sentence_pieces(header: Header, texts: list[str], kinds: list[int]) -> Tokenizer:
    """SentencePiece's BPE: a pair may merge where the whole is a token, the better scored first."""
    scores = [float(score) for score in header.field("tokenizer.ggml.scores", [])] or [0.0] * len(texts)
    if len(scores) != len(texts):
        raise WeightsError(f"{header.file}: tokenizer.ggml.tokens has {len(texts)} entries, their scores {len(scores)}")
    unknown = _token(header, "unknown") or 0
    if unknown >= len(texts):
        raise WeightsError(f"{header.file}: tokenizer.ggml.unknown_token_id is {unknown}, of {len(texts)} tokens")
    ranks = {text: token for token, text in enumerate(texts)}
    merges = []
    for token, text in enumerate(texts):
        if kinds[token] != _NORMAL:
            continue
        splits = ((text[:at], text[at:]) for at in range(1, len(text)))
        halves = [(left, right) for left, right in splits if left in ranks and right in ranks]
        # Of several ways to make a token the one of the commoner halves comes first, as when it was trained.
        halves.sort(key=lambda pair: (ranks[pair[0]], ranks[pair[1]]))
        merges += [(-scores[token], pair) for pair in halves]
    merges.sort(key=lambda merge: merge[0])
    model = models.BPE(
        vocab=ranks, merges=[pair for _, pair in merges], unk_token=texts[unknown], fuse_unk=True, byte_fallback=True
    )
    tokenizer = Tokenizer(model)
    spaces = normalizers.Replace(" ", "▁")
    prefixed = bool(header.field("tokenizer.ggml.add_space_prefix", True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), spaces]) if prefixed else spaces
    ends = [decoders.Strip(" ", 1, 0)] if prefixed else []
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *ends])
    return tokenizer


def _made(
    tokenizer: Tokenizer,
    size: int,
    file: Path,
    ends: Collection[int],
    template: str | None,
    special: dict[str, str],
    begins: int | None,
    infill: Infill | None,
) -> Vocabulary:
    have = tokenizer.get_vocab_size(with_added_tokens=True)
    if have > size:
        raise WeightsError(f"{file}: the tokenizer has {have} tokens and the model {size}: they do not belong together")
    known = {token for text in _ENDS if (token := _control(tokenizer, text)) is not None}
    filled = infill.ends if infill else ()
    declared, ends = ends, frozenset(token for token in {*ends, *known, *filled} if 0 <= token < size)
    if declared and not ends:
        told = ", ".join(map(str, sorted(declared)))
        raise WeightsError(f"{file}: an answer would end at token {told}, and the model has {size} tokens")
    return Vocabulary(tokenizer, _pieces(tokenizer, size), ends, template, special, begins, infill)


def _control(tokenizer: Tokenizer, text: str) -> int | None:
    token = tokenizer.token_to_id(text)
    added = tokenizer.get_added_tokens_decoder()
    return token if token in added and added[token].special else None


def _listed(text: str | None, tokenizer: Tokenizer) -> list[int]:
    token = None if text is None else tokenizer.token_to_id(text)
    return [] if token is None else [token]


def _pieces(tokenizer: Tokenizer, size: int) -> list[bytes | None]:
    """Every token's bytes, by the kind of its decoder; padding rows of the model's vocabulary have none."""
    described: dict[str, Any] = json.loads(tokenizer.to_str())
    byte_level = '"ByteLevel"' in json.dumps(described.get("decoder")) or '"ByteLevel"' in json.dumps(
        described.get("pre_tokenizer")
    )
    table = _bytes_of_characters()
    added = tokenizer.get_added_tokens_decoder()
    pieces: list[bytes | None] = [None] * size
    for text, token in tokenizer.get_vocab(with_added_tokens=True).items():
        if token in added:
            pieces[token] = None if added[token].special else added[token].content.encode()
        elif byte_level:
            pieces[token] = (
                bytes(table[each] for each in text) if all(each in table for each in text) else text.encode()
            )
        elif len(text) == 6 and text.startswith("<0x"):
            pieces[token] = bytes([int(text[3:5], 16)])
        else:
            pieces[token] = text.replace("▁", " ").encode()
    return pieces


def _bytes_of_characters() -> dict[str, int]:
    """The printable character that stands for each byte in byte-level BPE (GPT-2)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    table = {chr(byte): byte for byte in printable}
    return table | {chr(256 + index): byte for index, byte in enumerate(others)}
