"""The whole engine: company, order, chunks and memory change nothing in an answer; faults stay with their request."""

import math

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from server.errors import ContextLengthExceeded, InvalidValue, RequestError
from server.models.engine import Embed, Failed, Generate
from server.models.engines.paged import PagedEngine
from server.models.engines.paged.span import Span
from tests.making import TEXT, made
from tests.models.engines.paged.answering import Answer, alone, answered, asking, opened, same, stepped

_STORY = "The library opens at nine in the morning and closes at six, but on Sundays nobody comes to open its doors. "
_REQUESTS = [
    asking("Hello there"),
    asking(_STORY * 2, seed=1, temperature=0.9),
    asking("When does the library open?", 31, seed=2, temperature=1.3, top_k=40, top_p=0.9),
    asking(_STORY + "And then", 9, frequency_penalty=0.4, top_logprobs=2),
]


def test_answers_do_not_depend_on_the_company(family: PagedEngine) -> None:
    solo = alone(family, *_REQUESTS)
    assert len({each.text for each in solo}) == len(solo)
    assert same(answered(family, *_REQUESTS), solo)
    assert same(answered(family, *reversed(_REQUESTS)), solo[::-1])


def test_a_late_arrival_changes_no_answer_and_gets_its_own(family: PagedEngine) -> None:
    solo = alone(family, *_REQUESTS)
    answers = {key: Answer() for key in range(len(_REQUESTS))}
    for key, request in enumerate(_REQUESTS):
        family.submit(key, request)
        stepped(family, answers, 4)
    stepped(family, answers)
    assert same([answers[key] for key in range(len(_REQUESTS))], solo)


def test_a_prompt_read_in_pieces_gets_the_same_answer(family: PagedEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh = [msgspec.structs.replace(each, prompt_logprobs=0) for each in _REQUESTS]  # reads every token anew
    whole = alone(family, *fresh)
    monkeypatch.setattr(family, "_budget", lambda: 19)
    assert same(alone(family, *fresh), whole)
    assert same(answered(family, *fresh), whole)


def test_a_shared_prefix_is_computed_once_and_changes_nothing(family: PagedEngine) -> None:
    prompt = family._words.encode(_STORY * 4)
    [first] = answered(family, asking(prompt))
    [again, longer] = answered(family, asking(prompt), asking([*prompt, 7, 8]))
    full = (len(prompt) - 1) // 32 * 32
    assert again.cached == full > 32
    assert longer.cached >= full
    assert same([again], [first])


def test_cached_tokens_stand_in_the_first_delta_alone(llama: PagedEngine) -> None:
    prompt = llama._words.encode(_STORY * 3)
    answered(llama, asking(prompt, 2))
    llama.submit(0, asking(prompt, 4))
    told = [event.cached_tokens for _ in range(4) for _, event in llama.step()]  # type: ignore[union-attr]
    assert told == [(len(prompt) - 1) // 32 * 32, 0, 0, 0]


def test_preempted_answers_are_those_of_a_solo_run() -> None:
    engine = opened(made("random"), context=256, cache_tokens=256)
    requests = [
        asking(range(start, start + 60), 100, seed=start, temperature=heat, top_p=0.95)
        for start, heat in ((10, 0.0), (200, 0.8), (400, 1.2))
    ]
    solo = alone(engine, *requests)
    assert engine.schedule.preempted == 0
    assert same(answered(engine, *requests), solo)
    assert engine.schedule.preempted > 0
    assert engine.pages.free == engine.pages.count


def test_other_streams_go_on_while_a_long_prompt_is_read(llama: PagedEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llama, "_budget", lambda: 33)
    llama.submit(0, asking("Hello there", 40))
    llama.step()
    llama.submit(1, asking(range(1100, 1580), 2))
    steps = 0
    while 1 not in (heard := [key for key, _ in llama.step()]):
        assert heard == [0]
        steps += 1
    assert steps >= 10
    stepped(llama, {})


def test_a_short_prompt_does_not_wait_for_a_long_one(llama: PagedEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llama, "_budget", lambda: 32)
    llama.submit(0, asking(range(600, 1090), 2))
    llama.step()
    llama.submit(1, asking("Hello", 2))
    assert [key for key, _ in llama.step()] == [1]
    stepped(llama, {})


def test_a_prompt_of_many_pieces_works_in_a_long_context() -> None:
    engine = opened(made("random", family="qwen3"), context=8192, cache_tokens=8192)
    [answer] = answered(engine, asking(np.random.default_rng(0).integers(0, 1900, 8000).tolist(), 3))
    assert answer.tokens == 3


def test_cancelling_frees_pages_at_once(llama: PagedEngine) -> None:
    llama.submit(0, asking(range(200), 200))
    llama.submit(1, asking(range(300, 500), 200))
    llama.step()
    held = llama.pages.count - llama.pages.free
    llama.cancel(0)
    assert llama.pages.count - llama.pages.free == held - 7
    llama.cancel(1)
    assert llama.pages.free == llama.pages.count
    assert not llama.busy
    assert llama.step() == []


# ---- prompts that are scored ------------------------------------------------------------------------------------


def _reference(engine: PagedEngine, tokens: list[int]) -> NDArray[np.float64]:
    """Log-probabilities after every token, straight from the decoder, in float64."""
    pages = list(range(engine.pages.needed(len(tokens))))
    logits = engine._decoder.compute([Span(tokens, 0, pages, len(tokens))]).astype(np.float64)
    logits -= logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


@pytest.mark.parametrize("piece", [None, 7])
def test_a_scored_prompt_has_the_models_logprobs(piece: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = opened(made("random", family="qwen2"))
    if piece is not None:
        monkeypatch.setattr(engine, "_piece", piece)
    tokens = engine._words.encode(_STORY * 2)
    expected = _reference(engine, tokens)
    answered(engine, asking(tokens))  # a prefix that is computed must be scored all the same
    [answer] = answered(engine, replaced(asking(tokens, 0), prompt_logprobs=3))
    assert answer.scored is not None
    assert (answer.tokens, answer.text, answer.reason, answer.cached) == (0, "", "length", 0)
    assert answer.scored[0].logprob is None
    assert b"".join(each.data for each in answer.scored).decode() == _STORY * 2
    for place, told in enumerate(answer.scored[1:]):
        assert told.logprob == pytest.approx(expected[place, tokens[place + 1]], abs=2e-4)
        best = np.sort(expected[place])[::-1][:3]
        assert [each.logprob for each in told.top] == pytest.approx(best.tolist(), abs=2e-4)


def replaced(request: Generate, **fields: object) -> Generate:
    return msgspec.structs.replace(request, **fields)


def test_scoring_a_prompt_leaves_its_answer_as_it_was(llama: PagedEngine) -> None:
    [plain] = answered(llama, asking(_STORY))
    [scored] = answered(llama, replaced(asking(_STORY), prompt_logprobs=0))
    assert same([scored], [plain])
    assert scored.scored is not None and all(each.top == [] for each in scored.scored)
    [single] = answered(llama, replaced(asking([65], 1), prompt_logprobs=1))
    assert single.scored is not None and [each.logprob for each in single.scored] == [None]


def test_a_scored_prompt_is_scored_once_though_it_was_preempted() -> None:
    engine = opened(made("random"), context=256, cache_tokens=256)
    requests = [replaced(asking(range(start, start + 60), 100), prompt_logprobs=1) for start in (10, 200, 400)]
    solo = alone(engine, *requests)
    together = answered(engine, *requests)
    assert engine.schedule.preempted > 0
    assert same(together, solo)
    for one, other in zip(together, solo, strict=True):
        assert one.scored is not None and other.scored is not None
        assert [each.data for each in one.scored] == [each.data for each in other.scored]


def test_with_no_tokens_to_say_the_prompt_is_read_and_kept(llama: PagedEngine) -> None:
    prompt = llama._words.encode(_STORY * 2 + "read")
    [read] = answered(llama, asking(prompt, 0))
    assert (read.text, read.tokens, read.reason) == ("", 0, "length")
    assert answered(llama, asking(prompt, 1))[0].cached == (len(prompt) - 1) // 32 * 32


# ---- text -------------------------------------------------------------------------------------------------------


def test_the_automaton_says_its_text_and_ends_by_itself(automaton: PagedEngine) -> None:
    [answer] = answered(automaton, asking("anything\n", None))
    assert (answer.text, answer.reason) == (TEXT, "stop")
    assert answer.tokens < len(TEXT)


@pytest.mark.parametrize("end", ["<|im_end|>", "<|endoftext|>"])
def test_every_end_of_the_model_ends_an_answer(end: str, llama: PagedEngine) -> None:
    token = llama._words.tokenizer.token_to_id(end)
    assert token in llama._words.ends
    [answer] = answered(llama, asking("Hello", 9, logit_bias={token: 1e4}))
    assert (answer.text, answer.tokens, answer.reason) == ("", 0, "stop")
    [forced] = answered(llama, asking("Hello", 9, logit_bias={token: 1e4}, ignore_eos=True))
    assert (forced.tokens, forced.reason) == (9, "length")


def test_control_tokens_show_only_where_a_request_names_them(llama: PagedEngine) -> None:
    token = llama._words.tokenizer.token_to_id("<|im_start|>")
    request = asking("Hello", 2, logit_bias={token: 1e4}, top_logprobs=0)
    hidden, shown = answered(llama, request, replaced(request, markers=["<|im_start|>", "<none>"]))
    assert (hidden.text, hidden.tokens) == ("", 2)
    assert shown.text == "<|im_start|>" * 2
    assert [each.token for each in hidden.logprobs] == ["<|im_start|>"] * 2


def test_characters_come_whole_and_broken_ones_are_replaced(llama: PagedEngine) -> None:
    first = llama._words.encode("☂")[0]
    assert llama._words.pieces[first] == b"\xe2"
    llama.submit(0, asking("x", 3, logit_bias={first: 1e4}))
    pieces = [event.text for _ in range(3) for _, event in llama.step()]  # type: ignore[union-attr]
    # The same first byte again and again: it is broken as soon as the next one does not go on, and at the end.
    assert pieces == ["", "\ufffd", "\ufffd\ufffd"]


def test_logprobs_are_of_the_raw_logits(llama: PagedEngine) -> None:
    tokens = llama._words.encode("Hello there")
    expected = _reference(llama, tokens)[-1]
    request = asking(tokens, 1, top_logprobs=5, temperature=0.3, top_k=1, logit_bias={5: 1e4}, presence_penalty=1.0)
    [answer] = answered(llama, request)
    [told] = answer.logprobs
    assert told.logprob == pytest.approx(expected[5], abs=2e-4)
    assert [each.logprob for each in told.top] == pytest.approx(np.sort(expected)[::-1][:5].tolist(), abs=2e-4)
    assert math.exp(told.top[0].logprob or 0) <= 1


# ---- faults -----------------------------------------------------------------------------------------------------


def test_what_cannot_be_served_is_refused_by_field(llama: PagedEngine) -> None:
    for request, param in (
        (Generate(), "messages"),
        (asking([]), "prompt"),
        (asking([5, 2048]), "prompt"),
        (asking("x", logit_bias={2048: 1.0}), "logit_bias"),
    ):
        with pytest.raises(RequestError) as refused:
            llama.submit(0, request)
        assert refused.value.param == param
    with pytest.raises(ContextLengthExceeded, match="maximum context length is 512 tokens"):
        llama.submit(0, asking(range(512)))
    with pytest.raises(RequestError, match="This model is for"):
        llama.submit(0, Embed(texts=["x"]))
    assert not llama.busy


def test_an_answer_may_fill_the_context_and_ends_there(llama: PagedEngine) -> None:
    [answer] = answered(llama, asking(range(500), None))
    assert answer.tokens <= 12
    assert answer.reason == "length" or answer.tokens < 12


def test_a_sequence_longer_than_all_pages_fails_and_the_others_go_on(llama: PagedEngine) -> None:
    expected = alone(llama, asking("Hello there"))
    longest = llama.pages.count * llama.pages.size
    llama.submit(0, asking(range(100)))
    llama._answers[0].sequence.tokens += [1] * longest  # no request gets so far: submitting checks the context
    llama.submit(1, asking("Hello there"))
    answers: dict[int, Answer] = {}
    stepped(llama, answers)
    assert isinstance(answers[0].failed, Failed)
    assert answers[0].failed.code == "context_length_exceeded"
    assert same([answers[1]], expected)


def test_a_fault_of_one_answer_touches_no_other(llama: PagedEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    requests = [asking("Hello there"), asking("Something else", logit_bias={3: 0.5}), asking("A third", seed=1)]
    expected = alone(llama, *requests)
    for key, request in enumerate(requests):
        llama.submit(key, request)

    def refuse(_: object) -> None:
        raise InvalidValue("no more of this", param="grammar")

    monkeypatch.setattr(llama._answers[1].chooser, "adjust", refuse)
    answers: dict[int, Answer] = {}
    stepped(llama, answers)
    assert answers[1].failed == Failed("invalid_value", "no more of this", "grammar")
    assert same([answers[0], answers[2]], [expected[0], expected[2]])


def test_the_card_tells_what_was_loaded() -> None:
    folder = made("random", family="qwen3", format="safetensors")
    engine = opened(folder, context=64)
    card = engine.load(lambda _: None)
    assert card.tokenizer == str(folder / "tokenizer.json")
    assert (card.context, card.precision, card.task) == (64, "f32", "chat")
    assert card.weights_bytes > 128 * 2048 * 4
    assert card.cache_bytes == 128 * 2 * 2 * 2 * 64 * 4  # tokens, layers, keys and values, heads, width, bytes
    assert card.template is not None and "<|im_start|>" in card.template
    assert opened(made("automaton")).load(lambda _: None).tokenizer is None


def test_the_same_seed_gives_the_same_answer_and_another_one_another(llama: PagedEngine) -> None:
    def sampled(seed: int | None) -> str:
        return answered(llama, asking("Hello", 20, temperature=1.0, seed=seed))[0].text

    assert sampled(5) == sampled(5)
    assert len({sampled(5), sampled(6), sampled(None), sampled(None)}) == 4
