"""A model's tokenizer is the same from a GGUF file as from tokenizer.json, byte-level and SentencePiece alike."""

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gguf
import pytest
from gguf import TokenType
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from server.models.engines.sampling.cuts import CUTS
from server.models.engines.sampling.vocabulary import Speaking, Vocabulary, from_folder, from_gguf
from server.models.header import Header, WeightsError
from server.models.made.shapes import FAMILIES
from server.models.made.vocabulary import texts as written
from tests.making import made

_TEXTS = [
    "Hello world, it's 12345 o'clock.\n\n\tTabs  and   spaces ",
    "naïve 漢字かな ☂ 👩‍👩‍👧 עברית العربية",
    "<|im_start|>user\nhi<|im_end|>\n",
    "def f(x_y):\n    return x_y[0] ** 2  # don't\r\n",
    "",
    " ",
    "\x00\x7f",
]


def _pair(family: str) -> tuple[Vocabulary, Vocabulary]:
    file = from_gguf(Header.read(made("random", family=family)), 2048)
    return file, from_folder(made("random", family=family, format="safetensors"), 2048)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_byte_level_vocabulary_is_the_same_from_both_formats(family: str) -> None:
    file, folder = _pair(family)
    for text in _TEXTS:
        assert file.encode(text) == folder.encode(text)
        assert _said(file, file.encode(text)) == text.replace("<|im_start|>", "").replace("<|im_end|>", "")
    assert file.pieces == folder.pieces
    assert file.ends == folder.ends
    assert file.template == folder.template
    assert file.special["eos_token"] == folder.special["eos_token"] == "<|im_end|>"
    file.check_same(folder, Path("folder"))


def _said(vocabulary: Vocabulary, tokens: Sequence[int], markers: Sequence[str] = ()) -> str:
    speaking = Speaking(vocabulary, markers)
    return "".join(speaking.feed(token) for token in tokens) + speaking.flush()


@settings(max_examples=60, deadline=None)
@given(text=st.text())
def test_any_text_comes_back_from_its_tokens(text: str) -> None:
    vocabulary = _qwen()
    assert _said(vocabulary, vocabulary.encode(text), ["<|im_start|>", "<|im_end|>", "<|endoftext|>"]) == text


_KEPT: list[Vocabulary] = []


def _qwen() -> Vocabulary:
    if not _KEPT:
        _KEPT.append(from_gguf(Header.read(made("random", family="qwen2")), 2048))
    return _KEPT[0]


def test_a_character_is_said_when_its_last_byte_came() -> None:
    vocabulary = _qwen()
    at = {piece: token for token, piece in enumerate(vocabulary.pieces) if piece is not None}
    speaking = Speaking(vocabulary)
    assert [speaking.feed(at[bytes([byte])]) for byte in "é☂".encode()] == ["", "é", "", "", "☂"]
    assert speaking.feed(at[b"\xe2"]) == ""
    assert speaking.feed(at[b"a"]) == "\ufffda"
    assert (speaking.feed(at[b"\xf0"]), speaking.flush()) == ("", "\ufffd")


# ---- SentencePiece ----------------------------------------------------------------------------------------------


def _trained() -> tuple[list[str], list[tuple[str, str]]]:
    """Tokens and merges of a vocabulary as SentencePiece's BPE learns it, spaces written as ▁."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    texts = written()[:3]
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=500, show_progress=False, special_tokens=[]))
    merges = [(left, right) for left, right in json.loads(tokenizer.to_str())["model"]["merges"]]
    made_ = [left + right for left, right in merges]
    letters = sorted({letter for token in made_ for letter in token})
    return [*dict.fromkeys(made_), *letters], merges


@pytest.fixture(scope="module")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> tuple[Vocabulary, Vocabulary]:
    """The same SentencePiece vocabulary from a GGUF file's scores and from a tokenizer.json's merges."""
    folder = tmp_path_factory.mktemp("pieces")
    learned, merges = _trained()
    control = ["<unk>", "<s>", "</s>"]
    tokens = [*control, *(f"<0x{byte:02X}>" for byte in range(256)), *learned, "<tool>"]
    kinds = [TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL, *[TokenType.BYTE] * 256]
    kinds += [*[TokenType.NORMAL] * len(learned), TokenType.USER_DEFINED]
    scores = [0.0] * 259 + [-float(rank) for rank in range(len(learned))] + [0.0]
    file = _gguf(folder / "pieces.gguf", tokens, kinds, scores=scores)
    model = models.BPE(
        vocab={token: at for at, token in enumerate(tokens[:-1])},
        merges=merges,
        unk_token="<unk>",
        fuse_unk=True,
        byte_fallback=True,
    )
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens([AddedToken(each, special=True, normalized=False) for each in control])
    tokenizer.add_tokens([AddedToken("<tool>", special=False, normalized=False)])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"eos_token": "</s>", "bos_token": "<s>"}), encoding="utf-8"
    )
    return from_gguf(file, len(tokens)), from_folder(folder, len(tokens))


def _gguf(
    path: Path,
    tokens: list[str],
    kinds: Sequence[int],
    *,
    scores: list[float] | None = None,
    pre: str = "",
    unknown: int = 0,
    begins: int | None = None,
    ends: int | str | None = None,
) -> Header:
    """A file that holds a vocabulary alone."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model("llama" if scores is not None else "gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types(list(kinds))
    if scores is not None:
        writer.add_token_scores(scores)
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
        writer.add_unk_token_id(unknown)
    else:
        writer.add_tokenizer_pre(pre)
        writer.add_token_merges([])
    if begins is not None:
        writer.add_bos_token_id(begins)
        writer.add_add_bos_token(True)
    if isinstance(ends, str):
        writer.add_string("tokenizer.ggml.eos_token_id", ends)
    elif ends is not None:
        writer.add_eos_token_id(ends)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return Header.read(path)


def test_a_sentencepiece_vocabulary_is_the_same_from_both_formats(pieces: tuple[Vocabulary, Vocabulary]) -> None:
    file, folder = pieces
    texts = [*_TEXTS, *(text[:3000] for text in written())]
    for text in texts:
        assert file.encode(text) == folder.encode(text)
    assert file.pieces == folder.pieces
    assert file.ends == folder.ends == {2}
    file.check_same(folder, Path("folder"))


def test_sentencepiece_tokens_say_their_text(pieces: tuple[Vocabulary, Vocabulary]) -> None:
    file, _ = pieces
    tokens = file.encode("The model ☂ is here <tool>")
    assert _said(file, tokens) == " The model ☂ is here <tool>"
    assert file.pieces[:3] == [None, None, None]
    assert file.encode("x", begin=True)[0] == 1
    assert _said(file, [1, *file.encode("x"), 2]) == " x"


# ---- what does not fit ------------------------------------------------------------------------------------------


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused_by_its_file(tmp_path: Path) -> None:
    folder = made("random", format="safetensors")
    with pytest.raises(WeightsError, match="has 2003 tokens and the model 1000: they") as refused:
        from_folder(folder, 1000)
    assert str(folder / "tokenizer.json") in str(refused.value)
    file = _gguf(tmp_path / "small.gguf", ["a", "b", "c"], [1, 1, 1], pre="gpt-2")
    with pytest.raises(WeightsError, match="has 3 tokens and the model 2") as refused:
        from_gguf(file, 2)
    assert str(file.file) in str(refused.value)


@pytest.mark.parametrize(
    ("content", "words"), [(None, "No such file"), ("{", "EOF"), ('{"model": {"type": "BPE"}}', "tokenizer.json")]
)
def test_a_tokenizer_that_cannot_be_read_is_refused_by_its_file(
    content: str | None, words: str, tmp_path: Path
) -> None:
    shutil.copytree(made("random", format="safetensors"), tmp_path / "model")
    file = tmp_path / "model" / "tokenizer.json"
    if content is None:
        file.unlink()
    else:
        file.write_text(content, encoding="utf-8")
    with pytest.raises(WeightsError, match=words) as refused:
        from_folder(tmp_path / "model", 2048)
    assert str(file) in str(refused.value)


def test_scores_and_the_unknown_token_have_to_fit_the_tokens(tmp_path: Path) -> None:
    few = _gguf(tmp_path / "few.gguf", ["a", "b"], [1, 1], scores=[0.0])
    with pytest.raises(WeightsError, match=r"few\.gguf: tokenizer\.ggml\.tokens has 2 entries, their scores 1"):
        from_gguf(few, 2)
    beyond = _gguf(tmp_path / "beyond.gguf", ["a", "b"], [1, 1], scores=[0.0, 0.0], unknown=2)
    with pytest.raises(WeightsError, match=r"beyond\.gguf: tokenizer\.ggml\.unknown_token_id is 2, of 2 tokens"):
        from_gguf(beyond, 2)


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"begins": 9}, "tokenizer.ggml.bos_token_id is 9, and the model has 3 tokens"),
        ({"ends": 9}, "an answer would end at token 9, and the model has 3 tokens"),
        ({"ends": "</s>"}, "tokenizer.ggml.eos_token_id should be the number of a token, but is '</s>'"),
    ],
)
def test_tokens_that_begin_and_end_have_to_be_of_the_model(told: dict[str, Any], words: str, tmp_path: Path) -> None:
    file = _gguf(tmp_path / "far.gguf", ["a", "b", "c"], [1, 1, 1], pre="gpt-2", **told)
    with pytest.raises(WeightsError, match=re.escape(f"far.gguf: {words}")):
        from_gguf(file, 3)


def test_an_end_that_is_no_number_is_refused_by_its_file(tmp_path: Path) -> None:
    shutil.copytree(made("random", format="safetensors"), tmp_path / "model")
    (tmp_path / "model" / "generation_config.json").write_text('{"eos_token_id": ["</s>"]}', encoding="utf-8")
    with pytest.raises(WeightsError, match=r"generation_config\.json: eos_token_id should be numbers of tokens"):
        from_folder(tmp_path / "model", 2048)


def test_a_template_that_is_no_text_is_refused_by_its_file(tmp_path: Path) -> None:
    shutil.copytree(made("random", format="safetensors"), tmp_path / "model")
    (tmp_path / "model" / "chat_template.jinja").write_bytes(b"\xff")
    with pytest.raises(WeightsError, match=r"chat_template\.jinja: "):
        from_folder(tmp_path / "model", 2048)


@pytest.mark.parametrize("pre", ["poro-chat", "kimi-k2", "no-such"])
def test_a_pre_tokenizer_that_is_not_known_is_refused_by_name(pre: str, tmp_path: Path) -> None:
    file = _gguf(tmp_path / "model.gguf", ["a", "b"], [1, 1], pre=pre)
    with pytest.raises(WeightsError, match=f"the pre-tokenizer {pre} is not one of default, gpt-2"):
        from_gguf(file, 2)


@pytest.mark.parametrize("pre", CUTS)
def test_every_known_cut_keeps_all_of_a_text(pre: str) -> None:
    for text in _TEXTS:
        cut = CUTS[pre].pre_tokenizer().pre_tokenize_str(text)
        assert decoders.ByteLevel().decode([piece for piece, _ in cut]) == text


def test_cuts_are_those_of_the_published_tokenizers() -> None:
    def cut(pre: str, text: str) -> list[str]:
        pieces = CUTS[pre].pre_tokenizer().pre_tokenize_str(text)
        return [piece.replace("Ġ", " ").replace("Ċ", "\n") for piece, _ in pieces]

    assert cut("gpt-2", "It's 12345\n\nx") == ["It", "'s", " 12345", "\n", "\n", "x"]
    assert cut("llama-bpe", "It'S 12345\n\nx") == ["It", "'S", " ", "123", "45", "\n\n", "x"]
    assert cut("qwen2", "It's 123\n\nx/y") == ["It", "'s", " ", "1", "2", "3", "\n\n", "x", "/y"]
    assert cut("smollm", "It's 123") == ["It", "'s", " ", "1", "2", "3"]
    assert cut("tekken", "HelloWorld's 12") == ["Hello", "World", "'s", " ", "1", "2"]
    assert cut("gpt-4o", "HelloWorld's 1234") == ["Hello", "World's", " ", "123", "4"]
