"""Pictures and llama.cpp, with the real projector code: what is seen, counted, shared, cancelled and refused."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from config.model import LocalModel
from server.errors import ContextLengthExceeded, InvalidValue, RequestError, UnsupportedParameter
from server.models.engine import Delta, Engine, Failed, Generate, Grammar, Image, Sampling, Tokenize
from server.models.engines import create
from server.models.engines.llamacpp import eye
from server.models.made.sight import TOKENS
from tests.models.engines.driving import deltas, finished, steps, text
from tests.pictures import picture

GREEDY = Sampling(temperature=0.0)
HEAD, TAIL = "<|im_start|>user\nWhich colour?", "<|im_end|>\n<|im_start|>assistant\n"
MISSING = "The picture is mostly missing."


def asked(*pictures: bytes, head: str = HEAD, tail: str = TAIL, **keys: Any) -> Generate:
    images = [Image(data, f"<mark {at}>", 2048, f"messages[0].content[{at}]") for at, data in enumerate(pictures)]
    prompt = head + "".join(image.mark for image in images) + tail
    return Generate(prompt=prompt, images=images, **{"sampling": GREEDY, **keys})


def loaded(data: Path, **keys: Any) -> Engine:
    told = {"engine": "llamacpp", "source": "made:sight", "context": 512, "threads": 2, **keys}
    engine, _ = create(LocalModel.model_validate(told, context={}), data)
    return engine


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    ready = loaded(tmp_path_factory.mktemp("data"), projector="made:sight", parallel=4)
    card = ready.load(lambda _: None)
    assert "images" in card.honours
    yield ready
    ready.close()


@pytest.mark.parametrize(
    ("colour", "named"),
    [("red", "red"), ("lime", "green"), ("blue", "blue"), ("white", "white"), ("black", "black"), ("gray", "grey")],
)
def test_the_answer_tells_what_is_on_the_picture(engine: Engine, colour: str, named: str) -> None:
    [events] = finished(engine, asked(picture(colour)))
    assert text(events) == f"The picture is mostly {named}."


def test_the_larger_part_decides_and_no_picture_is_told(engine: Engine) -> None:
    [most] = finished(engine, asked(picture("cyan", "yellow", "yellow", "yellow")))
    assert text(most) == "The picture is mostly yellow."
    [none] = finished(engine, asked())
    assert text(none) == MISSING


def test_several_pictures_are_all_seen(engine: Engine) -> None:
    [events] = finished(engine, asked(picture("red"), picture("blue"), picture("blue")))
    assert text(events) == "The picture is mostly blue."


def test_every_request_at_once_has_its_own_picture(engine: Engine) -> None:
    colours = ["red", "blue", "cyan", "magenta", "yellow", "white"]
    answers = finished(engine, *(asked(picture(colour)) for colour in colours))
    assert [text(events) for events in answers] == [f"The picture is mostly {colour}." for colour in colours]


def test_the_tokens_of_pictures_are_counted_before_they_are_computed(engine: Engine) -> None:
    two = asked(picture("red"), picture("blue", size=(31, 200)))
    counted = [engine.count(each) for each in (asked(), asked(picture("red")), two)]
    assert [count - counted[0] for count in counted] == [0, TOKENS, 2 * TOKENS]
    assert engine.submit(0, two).prompt_tokens == counted[2]
    first = steps(engine)
    # llama.cpp's own count: of a prompt it knows, all but the last token has been computed.
    [again] = finished(engine, two)
    assert text([event for _, event in first]) == text(again)
    assert deltas(again)[0].cached_tokens == counted[2] - 1


def test_a_prompt_with_another_picture_shares_nothing_from_it_on(tmp_path: Path) -> None:
    engine = loaded(tmp_path, projector="made:sight", parallel=1)
    engine.load(lambda _: None)
    first, same, other = (
        finished(engine, asked(picture(colour), tail=" Tell me!" + TAIL))[0] for colour in ("red", "red", "blue")
    )
    assert [text(events) for events in (first, same)] == ["The picture is mostly red."] * 2
    assert text(other) == "The picture is mostly blue."
    before = engine.count(Generate(prompt=HEAD))
    cached = [deltas(events)[0].cached_tokens for events in (first, same, other)]
    assert cached[0] == 0
    assert cached[1] > before + TOKENS
    assert cached[2] == before
    engine.close()


def test_grammars_log_probabilities_and_limits_hold_beside_a_picture(engine: Engine) -> None:
    held = Grammar("regex", "The (picture|x) is mostly (red|blue)")
    logprobs = Sampling(temperature=0.0, top_logprobs=2)
    [events] = finished(engine, asked(picture("blue"), grammar=held, sampling=logprobs))
    assert text(events) == "The picture is mostly blue"
    told = [logprob for delta in deltas(events) for logprob in delta.logprobs]
    assert [each.token for each in told] == ["The", " picture", " is", " mostly", " blue"]
    assert all(len(each.top) == 2 for each in told)
    [short] = finished(engine, asked(picture("blue"), max_tokens=2))
    assert (text(short), deltas(short)[-1].finish_reason) == ("The picture", "length")


def test_a_prompt_that_its_pictures_make_too_long_is_refused(engine: Engine) -> None:
    many = [picture("red", size=(16, 16))] * (512 // TOKENS)
    with pytest.raises(ContextLengthExceeded):
        engine.submit(0, asked(*many))
    assert engine.count(asked(*many)) > 512
    [events] = finished(engine, asked(*many[: len(many) - 4]))
    assert text(events) == "The picture is mostly red."


def test_what_llama_cpp_would_abort_over_is_refused(engine: Engine) -> None:
    with pytest.raises(InvalidValue, match="ends with a picture") as fault:
        engine.submit(0, asked(picture("red"), picture("blue"), tail=""))
    assert fault.value.param == "messages[0].content[1]"
    [events] = finished(engine, asked(picture("red"), head=""))
    assert text(events) == "The picture is mostly red."


def test_a_broken_picture_costs_its_own_request_alone(engine: Engine) -> None:
    with pytest.raises(InvalidValue, match="cannot be read"):
        engine.submit(0, asked(picture("red")[:-40]))
    half = picture("red", "blue", kind="JPEG", size=(600, 400))
    [[failed]] = finished(engine, asked(half[: len(half) // 2]))
    assert isinstance(failed, Failed)
    assert (failed.code, failed.param) == ("invalid_value", "messages[0].content[0]")
    with pytest.raises(RequestError):
        engine.submit(0, Generate(prompt=[1, 2], images=asked(picture("red")).images))
    [events] = finished(engine, asked())
    assert text(events) == MISSING


def test_pictures_that_are_too_large_together_end_their_request(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eye, "_MOST_BYTES", 100)
    [events] = finished(engine, asked(picture("red")))
    [failed] = events
    assert isinstance(failed, Failed)
    assert (failed.code, failed.param) == ("invalid_value", "messages")


def test_token_ids_are_gone_on_with_beside_a_projector(engine: Engine) -> None:
    ids = engine.tokenize(Tokenize(HEAD + TAIL)).ids
    [events] = finished(engine, Generate(prompt=ids, sampling=GREEDY))
    assert text(events) == MISSING


def test_a_cancelled_request_is_over_and_its_place_free(engine: Engine) -> None:
    for key in range(8):
        engine.submit(key, asked(picture("red"), max_tokens=400, sampling=Sampling(ignore_eos=True)))
    while not any(isinstance(event, Delta) for _, event in engine.step()):
        pass
    for key in range(8):
        engine.cancel(key)
    assert not engine.busy
    [events] = finished(engine, asked(picture("blue")))
    assert text(events) == "The picture is mostly blue."


def test_a_model_without_projector_refuses_pictures(tmp_path: Path) -> None:
    blind = loaded(tmp_path)
    assert "images" not in blind.load(lambda _: None).honours
    with pytest.raises(UnsupportedParameter) as fault:
        blind.submit(0, asked(picture("red")))
    assert fault.value.param == "messages[0].content[0]"
    blind.close()


def test_a_token_that_begins_every_prompt_comes_once(tmp_path: Path) -> None:
    """Of a vocabulary that puts one before each text by itself, as llamas' do."""
    engine = loaded(tmp_path, projector="made:sight")
    file = tmp_path / "cache" / "made" / "sight" / "sight.gguf"
    data = bytearray(file.read_bytes())
    flag = data.index(b"tokenizer.ggml.add_bos_token") + len("tokenizer.ggml.add_bos_token") + 4
    assert data[flag] == 0
    data[flag] = 1
    file.write_bytes(data)
    engine.load(lambda _: None)
    plain = engine.count(asked())
    assert engine.count(asked(head="<|endoftext|>" + HEAD)) == plain
    one = asked(picture("red"))
    for head in (HEAD, "<|endoftext|>" + HEAD):
        request = asked(picture("red"), head=head)
        assert engine.count(request) == plain + TOKENS
        [events] = finished(engine, request)
        assert text(events) == "The picture is mostly red."
    [again] = finished(engine, one)
    assert deltas(again)[0].cached_tokens == plain + TOKENS - 1
    engine.close()
