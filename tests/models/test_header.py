"""Headers of GGUF files: what they tell, that lists wait until they are asked for, and that no length is believed."""

import struct
from pathlib import Path

import gguf
import pytest

from server.models.header import BLOCKS, Header, WeightsError, config
from tests.making import made

FIELD = "tokenizer.ggml.tokens"


def text(written: bytes) -> bytes:
    return struct.pack("<Q", len(written)) + written


def header(*fields: bytes, tensors: int = 0, version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, len(fields)) + b"".join(fields)


def listed(name: bytes, kind: int, length: int, entries: bytes = b"") -> bytes:
    return text(name) + struct.pack("<IIQ", 9, kind, length) + entries


def tensor(name: bytes, *size: int, kind: int = 0, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(size)}QIQ", len(size), *size, kind, offset)


def test_a_header_tells_fields_tensors_and_how_long_lists_are() -> None:
    found = Header.read(made("random", family="qwen3", quant="q8_0"))
    assert found.architecture == "qwen3"
    assert found.count("%.block_count") == 2 and found.field("%.nothing", "none") == "none"
    assert found.length(FIELD) == len(found.field("tokenizer.ggml.token_type")) == len(found.field(FIELD))
    assert found.length("%.block_count") == found.length("nothing") == 0
    entry = found.tensors["token_embd.weight"]
    assert entry.size == (2048, 128) and entry.bytes == 2048 * 128 // 32 * 34


def test_fields_and_lists_are_those_that_gguf_reads() -> None:
    file = made("random", family="llama", quant="q4_0")
    found, theirs = Header.read(file), gguf.GGUFReader(file)
    for key, field in theirs.fields.items():
        if not key.startswith("GGUF."):
            assert found.field(key) == field.contents(), key
    for tensor in theirs.tensors:
        entry = found.tensors[tensor.name]
        assert (entry.size, entry.kind) == (tuple(map(int, tensor.shape[::-1])), int(tensor.tensor_type))
        assert (entry.start, entry.bytes) == (tensor.data_offset, tensor.n_bytes)


def test_blocks_are_as_large_as_gguf_says() -> None:
    assert {int(kind): size for kind, size in gguf.GGML_QUANT_SIZES.items()} == BLOCKS


def test_a_list_is_held_against_the_file_when_it_is_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "m.gguf"
    whole = header(listed(b"a", 8, 2, text(b"one") + text(b"two")), listed(b"b", 4, 2, bytes(8)))
    file.write_bytes(whole)
    found = Header.read(file)
    assert (found.field("a"), found.field("b")) == (["one", "two"], [0, 0])
    file.write_bytes(whole[:-9])
    with pytest.raises(WeightsError, match=r"m\.gguf: .*cut off or corrupt in b"):
        found.field("b")


def test_texts_that_are_no_utf_8_are_refused_or_replaced_as_the_caller_wants(tmp_path: Path) -> None:
    file = tmp_path / "m.gguf"
    file.write_bytes(header(listed(b"a", 8, 1, text(b"\xff"))))
    found = Header.read(file)
    assert found.field("a", errors="replace") == ["\ufffd"]
    with pytest.raises(WeightsError, match=r"m\.gguf: .*corrupt in a: a text is not UTF-8"):
        found.field("a")


def test_a_type_that_is_not_known_is_told_with_the_least_it_takes(tmp_path: Path) -> None:
    file = tmp_path / "m.gguf"
    file.write_bytes(header(tensors=1) + tensor(b"t", 160, kind=999) + bytes(64))
    assert (Header.read(file).tensors["t"].kind, Header.read(file).tensors["t"].bytes) == (999, 10)


@pytest.mark.parametrize("kept", [0, 3, 4, 20, 200, 5000, 0.5, 0.97])
def test_a_file_that_is_cut_anywhere_is_refused_by_name(kept: float, tmp_path: Path) -> None:
    whole = made("random", family="llama", quant="q8_0").read_bytes()
    file = tmp_path / "cut.gguf"
    file.write_bytes(whole[: int(kept * len(whole)) if isinstance(kept, float) else kept])
    with pytest.raises(WeightsError, match=r"cut\.gguf: not a whole GGUF file"):
        Header.read(file)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (header(version=9), "version 9"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 2**60), "the metadata"),
        (header(tensors=2**60), "the list of tensors"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 2**62), "the metadata"),
        (header(listed(b"a", 8, 2**63)), "in a"),
        (header(listed(b"a", 8, 2, text(b"b") + struct.pack("<Q", 2**64 - 1))), "in a"),
        (header(listed(b"a", 8, 2, struct.pack("<Q", 2**63) + text(b"b"))), "in a"),
        (header(listed(b"a", 0, 2**63)), "in a"),
        (header(listed(b"a", 9, 1)), "a is a list of type 9"),
        (header(listed(b"a", 77, 1)), "a is a list of type 77"),
        (header(text(b"a") + struct.pack("<I", 77)), "a is of type 77"),
        (header(*[text(b"a") + struct.pack("<IB", 0, 1)] * 2), "a comes twice"),
        (header(text(b"a") + struct.pack("<I", 8) + text(b"\xff")), "in a: a text is not UTF-8"),
        (header(text(b"general.alignment") + struct.pack("<II", 4, 0)), "general.alignment is 0"),
        (header(tensors=1) + tensor(b"t", 2**40), "the tensor t ends"),
        (header(tensors=1) + tensor(b"t", 4, offset=2**63), "the tensor t ends"),
        (header(tensors=1) + tensor(b"t", 4, kind=2), "the tensor t has rows of 4"),
        (header(tensors=1) + tensor(b"t", *[1] * 5), "the tensor t has 5 dimensions"),
        (header(tensors=2) + tensor(b"t", 0) * 2, "the tensor t comes twice"),
        (header(tensors=2) + tensor(b"t", 4) + tensor(b"u", 4, offset=8) + bytes(99), "the tensors t and u lie in the"),
        (b"PK\x03\x04" + bytes(100), "does not begin with GGUF"),
    ],
)
def test_a_header_that_lies_is_refused_with_file_and_field(content: bytes, named: str, tmp_path: Path) -> None:
    file = tmp_path / "odd.gguf"
    file.write_bytes(content)
    with pytest.raises(WeightsError, match=rf"odd\.gguf: not a whole GGUF file: .*{named}"):
        Header.read(file)


def test_a_file_that_is_not_there_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"gone\.gguf: No such file"):
        Header.read(tmp_path / "gone.gguf")
    with pytest.raises(WeightsError, match=r"config\.json: .*No such file"):
        config(tmp_path)


def test_what_names_no_architecture_is_no_language_model(tmp_path: Path) -> None:
    file = tmp_path / "m.gguf"
    file.write_bytes(header())
    with pytest.raises(WeightsError, match=r"m\.gguf: names no architecture"):
        Header.read(file).count("%.block_count")
