"""Pictures and ExLlama: the real towers of both packages on the processor, beside transformers, and the engine's way
with them. See `processor` and `names` for what stands in.
"""

import gc
import json
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as Pillow

from bench.gpu.pictures import FAMILIES, FIGURES, answered, asked, compared, make_seeing, picture
from config.model import LocalModel
from server.errors import ContextLengthExceeded, InvalidValue, RequestError, UnsupportedParameter
from server.models.engine import Card, Failed, Generate
from server.models.engines.exllama.engine import ExLlamaEngine
from server.models.engines.pictures import Picture
from tests.making.oracle import needs_torch
from tests.models.engines.driving import deltas, finished, steps, text
from tests.models.engines.exllama.processor import needs_exllamav2, on_processor

pytestmark = [needs_exllamav2, needs_torch]

RED, BLUE = picture((140, 84), 1), picture((140, 84), 2)


@pytest.fixture(autouse=True, scope="module")
def processor() -> Iterator[None]:
    with on_processor():
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("seeing")


def _engine(folder: Path, data: Path, **keys: object) -> tuple[ExLlamaEngine, Card]:
    told = {"engine": "exllamav2", "source": str(folder), "context": 2048, "parallel": 8, **keys}
    spec = LocalModel.model_validate(told, context={})
    drafter = spec.draft.path if spec.draft is not None and not spec.draft.is_ngram else None
    engine = ExLlamaEngine("exllamav2", spec, folder, data, drafter)
    return engine, engine.load(lambda _: None)


@pytest.fixture(scope="module")
def qwen(made: Path) -> Path:
    return make_seeing(made / "qwen2_vl", "qwen2_vl")


@pytest.fixture(scope="module")
def engine(qwen: Path, made: Path) -> Iterator[ExLlamaEngine]:
    engine, card = _engine(qwen, made / "data")
    assert "images" in card.honours and "sees no pictures" not in card.description
    yield engine
    engine.close()


@pytest.fixture
def looks(engine: ExLlamaEngine, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The sizes of the pictures that go through the tower, of which nothing is kept at first."""
    vision = engine._vision
    assert vision is not None
    vision._kept.clear()
    looks: list[tuple[int, int]] = []
    usual = vision._tower.embed

    def embed(picture: Pillow.Image) -> Any:
        looks.append(picture.size)
        return usual(picture)

    monkeypatch.setattr(vision._tower, "embed", embed)
    return looks


# ---- the numbers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES["exllamav2"])
def test_a_picture_is_what_transformers_makes_of_it_and_so_is_the_answer(family: str, made: Path) -> None:
    """The package takes a mean away in Qwen2.5-VL's last norm, and ends the last line of Pixtral's pictures twice."""
    folder = make_seeing(made / family, family)
    engine, _ = _engine(folder, made / "data")
    found = compared(engine, folder, "cpu")
    engine.close()
    for key, (what, least, most) in FIGURES.items():
        assert least is None or found[key] >= least, (what, found)
        assert most is None or found[key] <= most, (what, found)
    assert found["features"] < 2e-3 and found["logprobs"] < 0.02


@pytest.mark.skipif(find_spec("exllamav3") is None, reason="NOT TESTED: exllamav3 not installed: run scripts/setup dev")
def test_the_other_package_makes_the_same_of_it(made: Path) -> None:
    """Its tower, its language model without a cache, and the ids and places that this engine gives it. It takes the
    bounds of GLM's pictures for those of one frame of the two."""
    folders = [str(make_seeing(made / family, family)) for family in FAMILIES["exllamav3"]]
    done = subprocess.run(
        [sys.executable, "-m", "tests.models.engines.exllama.v3_seeing", *folders],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=Path(__file__).parents[4],
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for folder, found in json.loads(done.stdout.splitlines()[-1]).items():
        assert found["layouts"] and found["tower"] > 10**6, (folder, found)
        assert found["features"] < 2e-3 and found["logprobs"] < 0.06, (folder, found)


# ---- counting, caching, company -------------------------------------------------------------------------------------


def test_a_picture_is_counted_before_it_is_looked_at(engine: ExLlamaEngine, looks: list[Any]) -> None:
    """15 cells of 28 pixels, and a token on either side; in the model's own ids."""
    plain, one, two = (engine.count(asked(*files)) for files in ((), (RED,), (RED, BLUE)))
    assert one - plain == 17
    assert two - one > 17
    admitted = engine.submit(1, asked(RED))
    engine.cancel(1)
    assert admitted.prompt_tokens == one == len(admitted.ids)
    told = engine._words.tokenizer.decode(admitted.ids, skip_special_tokens=False)
    assert f"What is <|vision_start|>{'<|image_pad|>' * 15}<|vision_end|> about?" in told
    assert looks == [] and not engine.busy


def test_a_picture_goes_through_the_tower_once(engine: ExLlamaEngine, looks: list[Any]) -> None:
    first, again, both = asked(RED), asked(RED), asked(BLUE, RED, BLUE)
    alone = answered(engine, first)[0]
    other = answered(engine, again)[0]
    assert alone.ids == other.ids and other.cached == len(other.prompt) - 1
    assert len(looks) == 1
    answered(engine, both, both)
    assert len(looks) == 2


def test_what_is_not_kept_is_looked_at_again_and_shares_nothing(
    engine: ExLlamaEngine, looks: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.models.engines.exllama.vision._KEPT", 1)
    answers = [answered(engine, asked(file))[0] for file in (RED, BLUE, RED)]
    assert len(looks) == 3
    assert answers[0].ids == answers[2].ids != answers[1].ids
    before = engine.count(Generate(prompt="<|im_start|>user\nWhat is "))
    assert answers[1].cached == answers[2].cached == before
    assert engine._vision is not None and len(engine._vision._kept) == 1


def test_a_conversation_goes_on_from_its_pictures(engine: ExLlamaEngine) -> None:
    first = asked(RED)
    [events] = finished(engine, first)
    prompt = f"{first.prompt}{text(events)}<|im_end|>\n<|im_start|>user\nAnd now?<|im_end|>\n<|im_start|>assistant\n"
    further = Generate(prompt=prompt, images=first.images, max_tokens=4)
    [more] = finished(engine, further)
    assert deltas(more)[0].cached_tokens >= engine.count(first) - 1


def test_a_picture_that_is_decoded_holds_nobody_up(
    engine: ExLlamaEngine, looks: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    go, usual = threading.Event(), Picture.decoded

    def slow(self: Picture) -> Pillow.Image:
        assert go.wait(60)
        return usual(self)

    monkeypatch.setattr(Picture, "decoded", slow)
    engine.submit(0, asked(RED))
    engine.submit(1, asked())
    ended: list[int] = []
    while 1 not in ended:
        ended += [key for key, event in engine.step() if getattr(event, "finish_reason", None)]
    assert ended == [1] and looks == []
    assert engine.step() == []  # and comes back, so that a cancel is heard
    engine.submit(2, asked(BLUE))
    engine.cancel(2)
    go.set()
    assert {key for key, _ in steps(engine)} == {0}
    assert len(looks) == 1


def test_an_answer_about_a_picture_outlives_its_lease(engine: ExLlamaEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    request = asked(RED, tokens=60)
    whole = answered(engine, request)[0]
    monkeypatch.setattr("server.models.engines.exllama.v2.LEASE", 25)
    assert answered(engine, request)[0].ids == whole.ids


# ---- refusals -------------------------------------------------------------------------------------------------------


def test_a_broken_picture_costs_its_own_request_alone(engine: ExLlamaEngine) -> None:
    with pytest.raises(InvalidValue, match="cannot be read") as fault:
        engine.submit(0, asked(RED, BLUE[:-40]))
    assert fault.value.param == "messages[0].content[1]"
    whole = picture((600, 400), 1)
    broken = bytearray(whole)
    at = whole.index(b"IDAT") + 40
    broken[at : at + 200] = bytes(200)
    good, bad = asked(RED), asked(_with_checksums(bytes(broken)))
    [kept, failed] = finished(engine, good, bad)
    assert [type(event) for event in failed] == [Failed]
    assert isinstance(failed[0], Failed) and failed[0].param == "messages[0].content[0]"
    assert deltas(kept)[-1].finish_reason is not None


def _with_checksums(data: bytes) -> bytes:
    """A PNG whose chunks' checksums are those of what they hold, so that only decoding finds its pixels corrupt."""
    import zlib

    made, at = bytearray(data[:8]), 8
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        body = data[at + 4 : at + 8 + length]
        made += data[at : at + 4] + body + zlib.crc32(body).to_bytes(4, "big")
        at += 12 + length
    return bytes(made)


def test_what_cannot_be_seen_is_refused_by_its_place(engine: ExLlamaEngine) -> None:
    with pytest.raises(InvalidValue, match="200 times as long") as fault:
        engine.submit(0, asked(RED, picture((1000, 4), 1)))
    assert fault.value.param == "messages[0].content[1]"
    with pytest.raises(RequestError, match="not in token ids"):
        engine.submit(0, Generate(prompt=[1, 2], images=asked(RED).images))
    with pytest.raises(UnsupportedParameter) as scored:
        engine.submit(0, Generate(prompt=asked(RED).prompt, images=asked(RED).images, prompt_logprobs=0))
    assert scored.value.param == "prompt_logprobs"
    assert not engine.busy
    assert answered(engine, asked(picture((3, 5), 1)))[0].ids  # smaller than one cell: it is enlarged


def test_pictures_past_the_context_are_refused(engine: ExLlamaEngine) -> None:
    large = picture((640, 480), 1)
    many = asked(*[large] * 30)
    assert engine.count(many) > 2048
    with pytest.raises(ContextLengthExceeded):
        engine.submit(0, many)
    assert not engine.busy


def test_a_model_with_a_draft_sees_no_pictures_and_says_so(qwen: Path, made: Path) -> None:
    engine, card = _engine(qwen, made / "data", draft=str(qwen))
    assert "images" not in card.honours
    assert "It sees no pictures: it has a draft, which is another model" in card.description
    with pytest.raises(UnsupportedParameter, match="sees no pictures") as fault:
        engine.submit(0, asked(RED))
    assert fault.value.param == "messages[0].content[0]"
    engine.close()


def test_guesses_of_repetition_do_not_change_what_is_seen(engine: ExLlamaEngine, qwen: Path, made: Path) -> None:
    guessing, card = _engine(qwen, made / "data", draft="ngram")
    assert "images" in card.honours
    asked_of = [asked(RED), asked(BLUE, RED)]
    wanted = [each.ids for each in answered(engine, *asked_of)]
    assert [each.ids for each in answered(guessing, *asked_of)] == wanted
    guessing.close()


def test_closing_lets_the_tower_go_and_what_it_made(qwen: Path, made: Path) -> None:
    engine, _ = _engine(qwen, made / "data")
    answered(engine, asked(RED))
    assert engine._vision is not None and engine._generator is not None
    tower: Any = engine._generator.tower
    [kept] = engine._vision._kept.values()
    left = [weakref.ref(kept.embedding.embeddings), weakref.ref(tower._tower.modules[0]), weakref.ref(tower)]
    del tower, kept
    engine.close()
    gc.collect()
    assert [ref() for ref in left] == [None] * 3
    engine.close()
