"""A Hugging Face tokenizer as the tables of a GGUF file: byte-level BPE, and SentencePiece's BPE.

Keys: ggml's docs/gguf.md, "Tokenizer". Of the name of the pre-tokenizer only its effect is known: it is the one that
cuts a long probe as the folder's own does. Whether the whole was understood is checked by reading it back.
"""

import json
from pathlib import Path
from typing import Any

from gguf import GGUFWriter, TokenType
from tokenizers import Tokenizer

from server.models.engines.sampling.cuts import CUTS
from server.models.engines.sampling.vocabulary import Vocabulary
from server.models.quantization.fault import QuantizeError

_PROBE = (
    "The  year's 2nd test, naïve: 漢字 ☂ 1234567\n\n\tx_y = [0.5] # ÄÖÜ ok I'LL go—we'Re  HTTPServer camelCase/path\r\n"
    "  12,345.67 … 'tis ½ ² Ⅷ ไทย मराठी עברית العربية こんにちは 안녕 🙂🙂 a\u0301b\u00a0c   \n \n  end//\n/"
)
_PLACEHOLDER = "[PAD%d]"


def add_tokenizer(writer: GGUFWriter, folder: Path, vocabulary: Vocabulary, size: int) -> None:
    """Write the tokenizer of `folder`, which `vocabulary` was read from, for a model of `size` rows.

    Raises QuantizeError for a kind that no GGUF file of these families has.
    """
    told = json.loads(vocabulary.tokenizer.to_str())
    model = told["model"]
    if model.get("type") != "BPE":
        raise QuantizeError(
            f"{folder / 'tokenizer.json'}: a tokenizer of kind {model.get('type')} is not written as GGUF"
        )
    ranks: dict[str, int] = model["vocab"]
    merges = [tuple(each.split(" ", 1)) if isinstance(each, str) else tuple(each) for each in model["merges"]]
    texts, kinds = _tokens(vocabulary.tokenizer, ranks, model.get("unk_token"), size)
    if model.get("byte_fallback"):
        _add_sentence_pieces(writer, texts, kinds, merges, told)
    else:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(_cut(folder, vocabulary.tokenizer, whole=bool(model.get("ignore_merges"))))
        writer.add_token_merges([f"{left} {right}" for left, right in merges])
    writer.add_token_list(texts)
    writer.add_token_types(kinds)
    _add_special(writer, vocabulary)


def _tokens(tokenizer: Tokenizer, ranks: dict[str, int], unknown: str | None, size: int) -> tuple[list[str], list[int]]:
    """The text and the type of each of the model's rows."""
    texts = [_PLACEHOLDER % token for token in range(size)]
    kinds = [int(TokenType.UNUSED)] * size
    for text, token in ranks.items():
        texts[token], kinds[token] = text, int(TokenType.NORMAL)
        if len(text) == 6 and text.startswith("<0x"):
            kinds[token] = int(TokenType.BYTE)
    for token, added in tokenizer.get_added_tokens_decoder().items():
        texts[token] = added.content
        kinds[token] = int(TokenType.CONTROL if added.special else TokenType.USER_DEFINED)
        if added.content == unknown:
            kinds[token] = int(TokenType.UNKNOWN)
    return texts, kinds


def _add_sentence_pieces(
    writer: GGUFWriter, texts: list[str], kinds: list[int], merges: list[tuple[str, ...]], told: dict[str, Any]
) -> None:
    """Scores are what SentencePiece merges by: the sooner a token is made, the better its score."""
    made: dict[str, int] = {}
    for rank, pair in enumerate(merges):
        made.setdefault("".join(pair), rank)
    last = len(merges)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    scores = [
        -float(made.get(text, last)) if kind == TokenType.NORMAL else 0.0
        for text, kind in zip(texts, kinds, strict=True)
    ]
    writer.add_token_scores(scores)
    writer.add_add_space_prefix(
        '"Prepend"' in json.dumps(told.get("normalizer")) or _prefixes(told.get("pre_tokenizer"))
    )
    if (unknown := told["model"].get("unk_token")) in texts:
        writer.add_unk_token_id(texts.index(unknown))


def _prefixes(pre_tokenizer: Any) -> bool:
    return '"prepend_scheme": "always"' in json.dumps(pre_tokenizer) or '"prepend_scheme": "first"' in json.dumps(
        pre_tokenizer
    )


def _cut(folder: Path, tokenizer: Tokenizer, *, whole: bool) -> str:
    """llama.cpp's name for how the tokenizer cuts a text before merging. Raises QuantizeError where it has none."""
    if tokenizer.normalizer is not None and tokenizer.normalizer.normalize_str(_PROBE) != _composed(_PROBE):
        raise QuantizeError(f"{folder / 'tokenizer.json'}: its normalizer is not one that GGUF files have")
    text = _PROBE
    if tokenizer.pre_tokenizer is not None:
        wanted = tokenizer.pre_tokenizer.pre_tokenize_str(text)
        for name, cut in CUTS.items():
            if name != "default" and cut.whole == whole and cut.pre_tokenizer().pre_tokenize_str(text) == wanted:
                return name
    raise QuantizeError(f"{folder / 'tokenizer.json'}: it cuts text in a way that llama.cpp has no name for")


def _composed(text: str) -> str:
    """Qwen's tokenizers compose characters first (NFC), and llama.cpp leaves that out."""
    import unicodedata

    return unicodedata.normalize("NFC", text)


def _add_special(writer: GGUFWriter, vocabulary: Vocabulary) -> None:
    tokenizer = vocabulary.tokenizer
    ids = {name: tokenizer.token_to_id(text) for name, text in vocabulary.special.items()}
    end = ids.get("eos_token")
    others = sorted(vocabulary.ends - {end})
    if end is None and others:
        end = others.pop(0)
    if end is not None:
        writer.add_eos_token_id(end)
    if others:
        writer.add_eot_token_id(others[0])
    if (begin := vocabulary.begins if vocabulary.begins is not None else ids.get("bos_token")) is not None:
        writer.add_bos_token_id(begin)
    if (pad := ids.get("pad_token")) is not None:
        writer.add_pad_token_id(pad)
    writer.add_add_bos_token(vocabulary.begins is not None)
    if vocabulary.template is not None:
        writer.add_chat_template(vocabulary.template)
