"""What every engine keeps: the protocol's contract, the same tests over each of them."""

from pathlib import Path

import msgspec
import pytest

from server.errors import ContextLengthExceeded, InvalidValue, RequestError, UnsupportedParameter
from server.models.engine import (
    Admitted,
    Card,
    Delta,
    Detokenize,
    Embed,
    Engine,
    Generate,
    Message,
    Tokenize,
    is_last,
)
from server.models.engines import create
from tests.making.oracle import MISSING, needs_torch
from tests.models.engines.driving import ROWS, finished, loaded, steps
from tests.models.engines.exllama.processor import MISSING as NO_EXLLAMA
from tests.models.engines.exllama.processor import needs_exllamav2
from tests.models.engines.paged.compiled import MISSING as NO_COMPILER
from tests.models.engines.paged.compiled import needs_compiler

_ABSENT = [pytest.param("transformers", marks=needs_torch)] if MISSING else []
_ABSENT += [pytest.param("exllamav2", marks=needs_exllamav2)] if NO_EXLLAMA else []
_ABSENT += [pytest.param("compiled", marks=needs_compiler)] if NO_COMPILER else []
every_engine = pytest.mark.parametrize("name", [*ROWS, *_ABSENT])
chat_engines = pytest.mark.parametrize("name", [*[name for name in ROWS if ROWS[name].spec.task == "chat"], *_ABSENT])
with_ids = pytest.mark.parametrize("name", [*[name for name in ROWS if name != "echo"], *_ABSENT])
rendering = pytest.mark.parametrize("name", [*[name for name in ROWS if ROWS[name].rendered], *_ABSENT])


@every_engine
def test_the_card_says_task_context_and_what_the_engine_is(name: str, cache: Path) -> None:
    engine, _ = create(ROWS[name].spec, cache)
    said: list[str] = []
    card = engine.load(said.append)
    assert isinstance(card, Card)
    assert card.task == ROWS[name].spec.task
    assert card.context == 512
    assert card.description
    assert card.tokenizer is None or Path(card.tokenizer).is_file()
    engine.close()
    engine.close()


@every_engine
def test_a_request_ends_with_exactly_one_last_event(name: str, engines: dict[str, Engine]) -> None:
    [events] = finished(engines[name], ROWS[name].short)
    assert [is_last(event) for event in events] == [False] * (len(events) - 1) + [True]
    assert not engines[name].busy


@every_engine
def test_submitting_says_how_many_tokens_were_read(name: str, engines: dict[str, Engine]) -> None:
    admitted = engines[name].submit(1, ROWS[name].short)
    assert isinstance(admitted, Admitted)
    assert admitted.prompt_tokens >= 3
    assert engines[name].busy
    steps(engines[name])


@every_engine
def test_the_same_request_gets_the_same_answer(name: str, engines: dict[str, Engine]) -> None:
    assert finished(engines[name], ROWS[name].short) == finished(engines[name], ROWS[name].short)


@every_engine
def test_many_requests_at_once_are_each_served_whole(name: str, engines: dict[str, Engine]) -> None:
    [alone] = finished(engines[name], ROWS[name].short)
    together = finished(engines[name], *[ROWS[name].short] * 5, ROWS[name].long)
    for events in together:
        assert [is_last(event) for event in events].count(True) == 1
        assert is_last(events[-1])
    if ROWS[name].steady:
        assert together[:5] == [alone] * 5


@every_engine
def test_a_short_request_does_not_wait_for_the_end_of_a_long_one(name: str, engines: dict[str, Engine]) -> None:
    engine = engines[name]
    engine.submit(1, ROWS[name].long)
    events = engine.step()
    engine.submit(2, ROWS[name].short)
    ended = [key for key, event in [*events, *steps(engine)] if is_last(event)]
    assert set(ended) == {1, 2}
    if ROWS[name].overtakes:
        assert ended[0] == 2


@every_engine
def test_a_cancelled_request_gets_no_more_events(name: str, engines: dict[str, Engine]) -> None:
    engine = engines[name]
    engine.submit(1, ROWS[name].long)
    engine.submit(2, ROWS[name].short)
    engine.step()
    engine.cancel(1)
    assert {key for key, _ in steps(engine)} <= {2}
    assert not engine.busy


@every_engine
def test_cancelling_before_the_first_step_leaves_nothing_to_do(name: str, engines: dict[str, Engine]) -> None:
    engines[name].submit(1, ROWS[name].long)
    engines[name].cancel(1)
    assert not engines[name].busy


@every_engine
def test_cancelling_what_is_unknown_or_over_is_no_fault(name: str, engines: dict[str, Engine]) -> None:
    engines[name].cancel(99)
    finished(engines[name], ROWS[name].short)
    engines[name].cancel(0)
    assert not engines[name].busy


@every_engine
def test_a_key_is_free_again_after_its_request(name: str, engines: dict[str, Engine]) -> None:
    engine = engines[name]
    [first] = finished(engine, ROWS[name].short)
    engine.submit(0, ROWS[name].long)
    engine.cancel(0)
    [again] = finished(engine, ROWS[name].short)
    assert again == first


@every_engine
def test_a_request_over_the_context_is_refused_and_nothing_of_it_kept(name: str, engines: dict[str, Engine]) -> None:
    with pytest.raises(ContextLengthExceeded, match="maximum context length is 512 tokens") as refused:
        engines[name].submit(1, ROWS[name].too_long)
    assert refused.value.param == ROWS[name].at_fault
    assert not engines[name].busy


@every_engine
def test_a_request_of_the_other_kind_is_refused(name: str, engines: dict[str, Engine]) -> None:
    with pytest.raises(RequestError, match="This model is for"):
        engines[name].submit(1, ROWS[name].wrong)
    assert not engines[name].busy


@pytest.mark.parametrize("name", ["echo", "reader"])
@pytest.mark.parametrize("said", [[], [Message("system", "Be kind."), Message("assistant", "Hello.")]])
def test_a_conversation_without_a_user_message_is_refused(
    name: str, said: list[Message], engines: dict[str, Engine]
) -> None:
    with pytest.raises(RequestError, match="no user message"):
        engines[name].submit(1, Generate(said))


@pytest.mark.parametrize("request_", [Embed(), Embed(texts=[]), Embed(tokens=[])])
def test_embedding_nothing_is_refused(request_: Embed, embedder: Engine) -> None:
    with pytest.raises(RequestError, match="nothing to embed"):
        embedder.submit(1, request_)


@every_engine
def test_closing_lets_requests_go(name: str, cache: Path) -> None:
    engine = loaded(ROWS[name].spec, cache)
    engine.submit(1, ROWS[name].long)
    engine.close()
    assert not engine.busy


# ---- token ids ------------------------------------------------------------------------------------------------------


@with_ids
def test_token_ids_say_the_text_they_were_made_of(name: str, engines: dict[str, Engine]) -> None:
    text = "one two three"
    told = engines[name].tokenize(Tokenize(text, add_special=False, pieces=True))
    assert len(told.pieces) == len(told.ids) >= 3
    assert engines[name].tokenize(Tokenize(text, add_special=False)).pieces == []
    assert engines[name].detokenize(Detokenize(told.ids)).text == text
    assert not engines[name].busy


@rendering
@pytest.mark.parametrize("text", ["naïve 漢字 ☂\n\n\tx", " leading", "", "<|im_start|>user\nHi<|im_end|>\n"])
def test_a_text_comes_back_as_it_was_sign_by_sign(name: str, text: str, engines: dict[str, Engine]) -> None:
    told = engines[name].tokenize(Tokenize(text, add_special=False, pieces=True))
    assert engines[name].detokenize(Detokenize(told.ids)).text == text
    assert b"".join(told.pieces).decode() == text


@rendering
def test_control_tokens_are_read_as_such_or_as_letters(name: str, engines: dict[str, Engine]) -> None:
    read = engines[name].tokenize(Tokenize("<|im_end|>", add_special=False)).ids
    spelled = engines[name].tokenize(Tokenize("<|im_end|>", add_special=False, parse_special=False)).ids
    assert len(read) == 1
    assert len(spelled) > 1
    assert engines[name].detokenize(Detokenize(spelled)).text == "<|im_end|>"
    assert engines[name].tokenize(Tokenize("<|im_end|>", add_special=False)).ids == read


@chat_engines
def test_a_prompt_is_counted_as_submitting_counts_it(name: str, engines: dict[str, Engine]) -> None:
    for request in (ROWS[name].short, ROWS[name].long):
        assert isinstance(request, Generate)
        counted = engines[name].count(request)
        assert engines[name].submit(1, request).prompt_tokens == counted
        if ROWS[name].rendered and isinstance(request.prompt, str):
            assert len(engines[name].tokenize(Tokenize(request.prompt)).ids) == counted
        engines[name].cancel(1)
    assert isinstance(too_long := ROWS[name].too_long, Generate)
    assert engines[name].count(too_long) > 512


@with_ids
def test_counting_goes_on_beside_a_generation(name: str, engines: dict[str, Engine]) -> None:
    [alone] = finished(engines[name], ROWS[name].short)
    engines[name].submit(0, ROWS[name].short)
    ids = engines[name].tokenize(Tokenize("one two")).ids
    engines[name].detokenize(Detokenize(ids))
    assert [event for _, event in steps(engines[name])] == alone


@with_ids
def test_a_foreign_id_is_refused(name: str, engines: dict[str, Engine]) -> None:
    for foreign in (-1, 10_000_000):
        with pytest.raises(InvalidValue, match="out of vocabulary: this model has") as refused:
            engines[name].detokenize(Detokenize([1, foreign]))
        assert refused.value.param == "tokens"


@rendering
def test_ids_are_told_and_end_an_answer_or_are_refused_by_name(name: str, engines: dict[str, Engine]) -> None:
    engine, plain = engines[name], ROWS[name].long
    assert isinstance(plain, Generate)
    asked = msgspec.structs.replace(plain, token_ids=True)
    if name in ("llamacpp", "seeing"):
        for more in ({"min_tokens": 2}, {"stop_token_ids": [5]}):
            sampling = msgspec.structs.replace(plain.sampling, **more)
            with pytest.raises(UnsupportedParameter, match=next(iter(more))):
                engine.submit(1, msgspec.structs.replace(plain, sampling=sampling))
        with pytest.raises(UnsupportedParameter, match="return_token_ids"):
            engine.submit(1, asked)
        return
    assert isinstance(asked.prompt, str)
    assert engine.submit(0, asked).ids == engine.tokenize(Tokenize(asked.prompt)).ids
    deltas = [event for _, event in steps(engine) if isinstance(event, Delta)]
    assert [len(delta.ids) for delta in deltas] == [delta.tokens for delta in deltas]
    ids = [token for delta in deltas for token in delta.ids]
    assert engine.detokenize(Detokenize(ids)).text == "".join(delta.text for delta in deltas)
    stop = ids[len(ids) // 2]
    for least, told in ((0, ids.index(stop)), (len(ids), asked.max_tokens)):
        sampling = msgspec.structs.replace(plain.sampling, stop_token_ids=[stop], min_tokens=least)
        [events] = finished(engine, msgspec.structs.replace(plain, sampling=sampling))
        written = [event.tokens for event in events if isinstance(event, Delta)]
        assert sum(written) == told if not least else len(ids) <= sum(written)
    foreign = msgspec.structs.replace(plain.sampling, stop_token_ids=[10_000_000])
    with pytest.raises(InvalidValue, match="10000000 is out of vocabulary"):
        engine.submit(1, msgspec.structs.replace(plain, sampling=foreign))


@pytest.mark.parametrize("name", ["openvino", "rerank"])
def test_models_that_do_not_generate_count_no_prompt(name: str, engines: dict[str, Engine]) -> None:
    with pytest.raises(RequestError, match="This model is for"):
        engines[name].count(Generate([Message("user", "text")]))


def test_echo_has_no_token_ids(echo: Engine) -> None:
    for ask in (lambda: echo.tokenize(Tokenize("text")), lambda: echo.detokenize(Detokenize([1]))):
        with pytest.raises(RequestError, match="no token ids"):
            ask()
