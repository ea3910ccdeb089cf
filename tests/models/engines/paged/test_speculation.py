"""Guesses save passes and change no answer: greedy, sampled, under a grammar, with penalties."""

import msgspec
import pytest

from server.models.engine import Grammar
from server.models.engines.paged import PagedEngine
from server.models.engines.paged.pages import Held
from server.models.engines.paged.span import Span
from server.models.engines.paged.speculation import NgramDraft
from server.models.header import WeightsError
from tests.making import made
from tests.models.engines.paged.answering import Answer, alone, answered, asking, opened, same, stepped

_ROUND = [11, 12, 13, 14, 15, 16] * 6
_REQUESTS = [
    asking(_ROUND, 40),
    asking("Hello there", 40, temperature=0.8, seed=6),
    asking(_ROUND, 40, temperature=1.2, seed=4, top_p=0.9, frequency_penalty=0.6, top_logprobs=2),
    msgspec.structs.replace(
        asking("x", 40, temperature=1.0, seed=5), grammar=Grammar("regex", "(abc ){6}(yes|no) (abc ){4}")
    ),
    asking("Hello", 1),
    asking("Hello", 0),
]


@pytest.fixture(scope="module")
def plain() -> PagedEngine:
    return opened(made("random"))


@pytest.fixture(scope="module")
def expected(plain: PagedEngine) -> list[Answer]:
    return alone(plain, *_REQUESTS)


@pytest.fixture(scope="module", params=["ngram", "itself", "another"])
def drafting(request: pytest.FixtureRequest) -> PagedEngine:
    path = made("random")
    if request.param == "ngram":
        return opened(path, draft="ngram", draft_tokens=4)
    # A model of other weights and the same tokenizer hardly ever guesses right, the model itself always does.
    return opened(path, path if request.param == "itself" else made("random", seed=1), draft_tokens=4)


def test_answers_are_those_without_a_draft(drafting: PagedEngine, expected: list[Answer]) -> None:
    for found in (alone(drafting, *_REQUESTS), answered(drafting, *_REQUESTS)):
        assert same(found, expected)
        for one, other in zip(found, expected, strict=True):
            assert [each.data for each in one.logprobs] == [each.data for each in other.logprobs]
            for told, wanted in zip(one.logprobs, other.logprobs, strict=True):
                assert told.logprob == pytest.approx(wanted.logprob, abs=1e-3)
    assert drafting.drafted >= drafting.accepted
    assert drafting.pages.free == drafting.pages.count


def test_a_draft_that_guesses_right_saves_passes() -> None:
    path = made("random")
    engine = opened(path, path, draft_tokens=4)
    engine.submit(0, asking("Hello there", 41))
    answers: dict[int, Answer] = {}
    steps = 0
    while engine.busy:
        stepped(engine, answers, 1)
        steps += 1
    assert answers[0].tokens == 41
    assert steps <= 10
    assert engine.accepted == engine.drafted >= 30


def test_a_text_that_repeats_itself_is_guessed_from_itself() -> None:
    engine = opened(made("random"), draft="ngram", draft_tokens=4)
    token = engine._words.encode("a")[0]
    engine.submit(0, asking([5, 6, 7, token], 40, logit_bias={token: 1e4}))
    steps = 0
    while engine.busy:
        engine.step()
        steps += 1
    assert steps <= 12
    assert engine.accepted >= 28


def test_sampled_answers_are_distributed_as_without() -> None:
    path = made("random")
    engine, plain = opened(path, made("random", seed=1), draft_tokens=3), opened(path)
    requests = [asking(_ROUND, 4, temperature=1.0, seed=seed) for seed in range(60)]
    assert same(answered(engine, *requests), answered(plain, *requests))
    assert engine.drafted > 60


def test_rejected_guesses_are_never_found_by_a_prefix(plain: PagedEngine) -> None:
    engine = opened(made("random"), made("random", seed=1), draft_tokens=6)
    prompt = [*range(40, 70)]  # so that answers cross the edge of a page while they guess
    alone(engine, *[asking(prompt, 70, temperature=1.0, seed=seed) for seed in range(4)])
    assert engine.accepted < engine.drafted
    engine.submit(0, asking(prompt, 70, temperature=1.0, seed=0))
    sequence = engine._answers[0].sequence
    stepped(engine, {})
    follow = asking(sequence.tokens, 20)
    [found], [wanted] = answered(engine, follow), answered(plain, follow)
    assert found.cached >= 64
    assert same([found], [wanted])


def test_preempted_answers_with_drafts_are_those_of_a_solo_run(plain: PagedEngine) -> None:
    engine = opened(made("random"), made("random", seed=1), context=256, cache_tokens=256, draft_tokens=4)
    requests = [asking(range(start, start + 60), 100, seed=start, temperature=0.8) for start in (10, 200, 400)]
    assert same(answered(engine, *requests), alone(plain, *requests))
    assert engine.schedule.preempted > 0
    assert engine.pages.free == engine.pages.count


def test_a_drafts_pages_are_free_after_answers_and_cancelled_ones() -> None:
    path = made("random")
    engine = opened(path, path)
    answered(engine, *_REQUESTS[:3])
    engine.submit(0, asking(range(100), 50))
    for _ in range(3):
        engine.step()
    engine.cancel(0)
    draft = engine._draft
    assert draft is not None and draft._pages.free == draft._pages.count  # type: ignore[attr-defined]
    assert not draft._states  # type: ignore[attr-defined]


def test_a_draft_with_another_tokenizer_is_refused_by_its_file() -> None:
    other = made("random", family="qwen2")
    with pytest.raises(WeightsError, match="needs the tokenizer of the model it guesses for") as refused:
        opened(made("random"), other)
    assert str(other) in str(refused.value)


def test_a_draft_may_come_in_another_format() -> None:
    engine = opened(made("random"), made("random", format="safetensors"), draft_tokens=4)
    answered(engine, asking("Hello there", 30))
    assert engine.accepted == engine.drafted > 0


@pytest.mark.parametrize(
    ("tokens", "guesses"),
    [
        ([1, 2, 3, 4, 5, 1, 2, 3], [4, 5, 1, 2]),
        ([1, 2, 3, 9, 2, 3, 8, 1, 2, 3], [9, 2, 3, 8]),
        ([2, 3, 7, 2, 3, 8, 2, 3], [8, 2, 3, 8]),
        ([7, 7, 7], [7, 7, 7, 7]),
        ([1, 2, 1, 3, 1], []),
        ([1], []),
    ],
)
def test_what_followed_the_last_tokens_before_is_guessed(tokens: list[int], guesses: list[int]) -> None:
    grown = tokens[:1]
    sequence, draft = Held(grown), NgramDraft(4)
    for token in tokens[1:]:
        draft.guess([(sequence, 4)])
        grown.append(token)
    assert draft.guess([(sequence, 4)]) == [guesses]
    assert NgramDraft(4).guess([(Held(tokens), 4)]) == [guesses]
    draft.forget(sequence)
    draft.forget(sequence)


def test_positions_after_guesses_are_those_of_single_steps(plain: PagedEngine) -> None:
    tokens = list(range(20, 60))
    together = plain._decoder.compute([Span(tokens, 0, [0, 1], 4)]).copy()
    plain._decoder.compute([Span(tokens[:37], 0, [2, 3], 1)])
    apart = [plain._decoder.compute([Span([tokens[at]], at, [2, 3], 1)])[0].copy() for at in range(37, 40)]
    assert abs(together[1:] - apart).max() < 1e-3
