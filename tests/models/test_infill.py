"""The tokens for filling in the middle: which a vocabulary has, and in what order a prompt puts them."""

import pytest

from server.models.infill import Infill, infill_tokens


def vocabulary(*texts: str) -> dict[str, int]:
    return {text: 100 + index for index, text in enumerate(texts)}


@pytest.mark.parametrize(
    "texts",
    [
        ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),
        ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),
        ("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"),
        ("▁<PRE>", "▁<SUF>", "▁<MID>"),
        ("<|code_prefix|>", "<|code_suffix|>", "<|code_middle|>"),
    ],
)
def test_prefix_suffix_and_then_the_middle(texts: tuple[str, ...]) -> None:
    infill = infill_tokens(vocabulary(*texts).get)
    assert infill is not None
    assert infill.prompt([1], [2, 3], [4]) == [1, 100, 2, 3, 101, 4, 102]
    assert infill.prompt([], [2], [], [7, 8]) == [7, 8, 100, 2, 101, 102]


def test_mistral_reads_the_suffix_first_and_goes_on_from_the_prefix() -> None:
    infill = infill_tokens(vocabulary("[PREFIX]", "[MIDDLE]", "[SUFFIX]").get)
    assert infill is not None
    assert infill.prompt([1], [2, 3], [4]) == [1, 102, 4, 100, 2, 3]


def test_a_vocabulary_that_lacks_one_of_them_fills_nothing_in() -> None:
    assert infill_tokens(vocabulary("<|fim_prefix|>", "<|fim_suffix|>", "<fim_middle>").get) is None
    assert infill_tokens(vocabulary().get) is None


def test_what_a_gguf_file_says_comes_first() -> None:
    texts = vocabulary("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>")
    told = {"fim_pre_token_id": 5, "fim_suf_token_id": 6, "fim_mid_token_id": 7, "fim_pad_token_id": 8}
    assert infill_tokens(texts.get, told) == Infill(5, 6, 7, ends=[8])
    older = {"prefix_token_id": 5, "suffix_token_id": 6, "middle_token_id": 7}
    assert infill_tokens(texts.get, older) == Infill(5, 6, 7)
    assert infill_tokens(texts.get, {"fim_pre_token_id": 5}) == Infill(100, 101, 102)


def test_what_divides_files_ends_an_answer() -> None:
    texts = vocabulary("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|repo_name|>", "<|file_sep|>", "<EOT>")
    infill = infill_tokens(texts.get)
    assert infill is not None
    assert (infill.repository, infill.file, infill.ends) == (103, 104, [103, 104, 105])
