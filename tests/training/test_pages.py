"""The made-up pages: every answer stands where it is said to, and the same seed makes the same pages."""

from collections import Counter

from training.pages import KINDS, pages


def test_every_answer_stands_where_it_is_said_to() -> None:
    made = pages(3, 60)
    assert {page.title.partition(" ")[0] for page in made} == {kind.__name__.strip("_") for kind in KINDS}
    for page in made:
        assert page.questions
        for question in page.questions:
            for answer in question.answers:
                assert page.context[answer.start : answer.start + len(answer.text)] == answer.text


def test_some_questions_have_no_answer_and_none_has_both() -> None:
    asked: dict[tuple[str, str, str], set[bool]] = {}
    for page in pages(3, 60):
        for question in page.questions:
            asked.setdefault((page.title, page.context, question.question), set()).add(bool(question.answers))
    assert all(len(each) == 1 for each in asked.values())
    told = Counter(next(iter(each)) for each in asked.values())
    assert 0.03 < told[False] / told.total() < 0.3


def test_the_seed_decides() -> None:
    assert pages(3, 20) == pages(3, 20)
    assert pages(3, 20) != pages(4, 20)
