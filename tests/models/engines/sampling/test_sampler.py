"""Every parameter against plain numpy in float64: which tokens may come, how likely, and which one does."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from server.errors import HearthError, InvalidValue
from server.models.engine import Sampling
from server.models.engines.sampling.sampler import Choice, Chooser, Rows, Sampler, likeliest

SIZE = 720
PROMPT = [3, 3, 5, 700]
Floats = NDArray[np.float64]


def logits(rows: int = 1, seed: int = 0) -> Rows:
    return (np.random.default_rng(seed).standard_normal((rows, SIZE)) * 3).astype(np.float32)


def chooser(said: list[int] | None = None, ends: frozenset[int] = frozenset(), **sampling: Any) -> Chooser:
    made = Chooser(Sampling(**sampling), PROMPT, None, ends)
    for token in said or []:
        made.take(token)
    return made


def expected(row: Rows, said: list[int], **told: Any) -> Floats:
    """The distribution the parameters mean, written for reading: [vocabulary]."""
    sampling = Sampling(**told)
    scores = row.astype(np.float64)
    for token, bias in sampling.logit_bias.items():
        scores[token] += bias
    for token in set(PROMPT) | set(said):
        scores[token] *= 1 / sampling.repetition_penalty if scores[token] > 0 else sampling.repetition_penalty
    for token in set(said):
        scores[token] -= sampling.presence_penalty + sampling.frequency_penalty * said.count(token)
    order = np.argsort(-scores, kind="stable")
    if sampling.temperature == 0:
        return np.eye(len(scores))[order[0]]
    weights = np.exp((scores - scores.max()) / sampling.temperature)
    if sampling.top_k:
        weights[order[sampling.top_k :]] = 0
    shares = np.cumsum(weights[order]) / weights.sum()
    weights[order[1:][shares[:-1] >= sampling.top_p]] = 0
    weights[weights < weights.max() * sampling.min_p] = 0
    return np.asarray(weights / weights.sum())


PARAMETERS: list[dict[str, Any]] = [
    {"temperature": 0.0},
    {},
    {"temperature": 0.4},
    {"temperature": 2.0},
    {"top_k": 1},
    {"top_k": 7},
    {"top_k": 5000},
    {"top_p": 0.3},
    {"top_p": 0.9},
    {"top_p": 0.999, "temperature": 4.0},
    {"min_p": 0.1},
    {"top_k": 20, "top_p": 0.8, "min_p": 0.05, "temperature": 0.8},
    {"logit_bias": {4: 9.0, 8: -100.0}},
    {"presence_penalty": 1.5},
    {"frequency_penalty": 0.7},
    {"frequency_penalty": -0.5, "presence_penalty": -1.0},
    {"repetition_penalty": 1.4},
    {"repetition_penalty": 0.8, "frequency_penalty": 0.1, "top_p": 0.7, "logit_bias": {3: 2.0}},
]


@pytest.mark.parametrize("told", PARAMETERS, ids=str)
def test_tokens_come_as_often_as_the_parameters_say(told: dict[str, Any]) -> None:
    row = logits()[0]
    row[[3, 5, 9, 11]] = [8.5, 8.0, 9.0, 7.5]  # the ones that count, among them the ones already said
    said = [9, 9, 11]
    wanted = expected(row, said, **told)
    sampler, found = Sampler(SIZE), np.zeros(SIZE)
    count = 2000
    adjusted = chooser(said, seed=5, **told)
    scores = row.copy()
    adjusted.adjust(scores)
    for _ in range(count):
        # `take` would change the penalties: the same place is drawn for again and again.
        number = adjusted.draw()
        sampling = adjusted.sampling
        found[int(scores.argmax()) if adjusted.greedy else sampler._drawn(scores, sampling, number)] += 1
    assert set(np.flatnonzero(found)) <= set(np.flatnonzero(wanted > 0))
    spread = np.sqrt(wanted * (1 - wanted) / count)
    assert (np.abs(found / count - wanted) <= 5 * spread + 2 / count).all()


@pytest.mark.parametrize("told", [each for each in PARAMETERS if each.get("temperature", 1.0)], ids=str)
def test_what_may_come_is_exactly_what_the_parameters_leave(told: dict[str, Any]) -> None:
    row = logits(seed=4)[0]
    wanted = expected(row, [], **told)
    scores = row.copy()
    chooser(**told).adjust(scores)
    sampler = Sampler(SIZE)
    drawn = {sampler._drawn(scores, Sampling(**told), number) for number in np.linspace(0, 1, 6_000, endpoint=False)}
    assert drawn <= set(np.flatnonzero(wanted))
    assert {int(token) for token in np.flatnonzero(wanted > 2 / 6_000)} <= drawn  # each is wider than the steps


def test_an_answer_depends_on_its_seed_and_not_on_the_company() -> None:
    rows = logits(6)
    told: list[dict[str, Any]] = [
        {"seed": 1, "top_p": 0.9},
        {"temperature": 0.0},
        {"seed": 1, "top_k": 30, "top_logprobs": 2},
        {"seed": 7, "frequency_penalty": 1.0},
        {"temperature": 0.0, "top_logprobs": 0},
        {"seed": 1},
    ]
    solo = [[Sampler(SIZE).choose(rows, [(at, each)])[0] for _ in range(5)] for at, each in enumerate(map(_of, told))]
    sampler, together = Sampler(SIZE), list(enumerate(map(_of, told)))
    assert [sampler.choose(rows, together) for _ in range(5)] == [list(each) for each in zip(*solo, strict=True)]


def _of(told: dict[str, Any]) -> Chooser:
    return chooser(**told)


def test_logits_are_left_as_they_are() -> None:
    rows = logits(2)
    before = rows.copy()
    asked = [(0, chooser(top_p=0.5, logit_bias={1: 5.0}, seed=1, top_logprobs=3)), (1, chooser(presence_penalty=1.0))]
    Sampler(SIZE).choose(rows, asked)
    assert (rows == before).all()


def test_logprobs_are_those_of_the_raw_logits() -> None:
    rows = logits()
    whole = rows[0].astype(np.float64)
    wanted = whole - np.log(np.exp(whole).sum())
    [choice] = Sampler(SIZE).choose(rows, [(0, chooser(temperature=0.0, logit_bias={5: 1e3}, top_logprobs=20))])
    assert isinstance(choice, Choice) and choice.token == 5
    assert choice.logprob == pytest.approx(wanted[5], abs=1e-5)
    best = np.argsort(-wanted)[:20]
    assert [token for token, _ in choice.top] == best.tolist()
    assert [logprob for _, logprob in choice.top] == pytest.approx(wanted[best].tolist(), abs=1e-5)
    [bare] = Sampler(SIZE).choose(rows, [(0, chooser(temperature=0.0, top_logprobs=0))])
    assert isinstance(bare, Choice) and bare.top == () and bare.logprob == pytest.approx(wanted.max(), abs=1e-5)


def test_ignoring_the_end_takes_what_would_come_else() -> None:
    rows = logits()
    order = np.argsort(-rows[0])
    ends = frozenset(order[:2].tolist())
    [choice] = Sampler(SIZE).choose(rows, [(0, chooser(ends=ends, temperature=0.0, ignore_eos=True))])
    assert choice == Choice(int(order[2]))
    [choice] = Sampler(SIZE).choose(rows, [(0, chooser(ends=ends, temperature=0.0))])
    assert choice == Choice(int(order[0]))


@pytest.mark.parametrize("told", [{"temperature": 0.0}, {"top_k": 5}, {}, {"logit_bias": {1: 1.0}}], ids=str)
def test_numbers_that_are_none_fail_their_own_answer_only(told: dict[str, Any]) -> None:
    rows = logits(2)
    rows[0] = np.nan
    found = Sampler(SIZE).choose(rows, [(0, chooser(**told)), (1, chooser(temperature=0.0))])
    assert isinstance(found[0], HearthError) and "no usable probabilities" in found[0].message
    assert found[1] == Choice(int(rows[1].argmax()))


def test_a_constraint_that_fails_fails_its_own_answer_only() -> None:
    class Broken:
        ended = False

        def allowed(self) -> NDArray[np.bool_]:
            raise InvalidValue("too complex", param="response_format")

    rows = logits(2)
    broken = Chooser(Sampling(), PROMPT, Broken(), frozenset())  # type: ignore[arg-type]
    found = Sampler(SIZE).choose(rows, [(0, broken), (1, chooser(temperature=0.0))])
    assert isinstance(found[0], InvalidValue)
    assert isinstance(found[1], Choice)


@settings(max_examples=50, deadline=None)
@given(
    arrays.arrays(np.float32, st.integers(1, 700), elements=st.floats(-50, 50, width=32)),
    st.integers(0, 80),
)
def test_the_likeliest_are_those_a_sort_finds(scores: Rows, wanted: int) -> None:
    assert likeliest(scores, wanted).tolist() == np.argsort(-scores, kind="stable")[:wanted].tolist()


@settings(max_examples=50, deadline=None)
@given(
    arrays.arrays(np.float32, st.integers(1, 700), elements=st.floats(-50, 50, width=32)),
    st.floats(0, 1, exclude_max=True),
    st.floats(0.01, 1),
)
def test_a_token_without_weight_is_never_drawn(scores: Rows, number: float, top_p: float) -> None:
    sampling = Sampling(top_p=top_p)
    token = Sampler(len(scores))._drawn(scores, sampling, number)
    weights = np.exp((scores - scores.max()).astype(np.float64))
    higher = weights[weights > weights[token]].sum()
    assert higher < top_p * weights.sum() * (1 + 1e-5)
    assert weights[token] > 0
