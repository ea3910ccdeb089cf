"""Answers that compiled code computes without the graph: the same logits, in any company, and when there is none."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from config.model import LocalModel
from server.models.engines.paged import PagedEngine, trial
from server.models.engines.paged.gguf_file import GgufFile
from server.models.engines.paged.kernel import Kernel
from server.models.engines.paged.runtime import ROUNDED, Decoder
from server.models.engines.paged.span import Span
from server.models.made.shapes import FAMILIES
from tests.making import made
from tests.making.tiny_task import examples
from tests.models.engines.paged.answering import answered, asking
from tests.models.engines.paged.compiled import given, library, needs_compiler

pytestmark = needs_compiler

TOKENS = [int(token) for token in np.random.default_rng(0).integers(0, 1500, 1400)]


@pytest.fixture(scope="module", params=[256, 512])
def kernel(request: pytest.FixtureRequest) -> Kernel:
    made_of = Kernel(library(), request.param)
    if made_of.registers != request.param:
        pytest.skip(f"NOT TESTED: this processor has no registers of {request.param} bits, or no VNNI")
    return made_of


def _decoder(kernel: Kernel, family: str, quant: str, precision: str = ROUNDED, tokens: int = 1600) -> Decoder:
    file = GgufFile(made("random", family=family, quant=quant))
    return Decoder(file, tokens=tokens, precision=precision, threads=2, kernel=kernel)


def _both(decoder: Decoder, *spans: tuple[list[int], int, list[int], int]) -> list[NDArray[np.float32]]:
    """By the graph, and by compiled code, which writes the same pages once more."""
    return [decoder.compute([Span(*each, written) for each in spans]).copy() for written in (False, True)]


def _alike(graph: NDArray[np.float32], compiled: NDArray[np.float32]) -> None:
    """An activation between two numbers of 8 bits may be rounded to either, which a random model makes much of, and
    what looks at it later is another too: so not all rows are the same, but all are near."""
    apart = np.abs(graph - compiled).max(-1)
    assert np.quantile(apart, 0.25) <= 1e-4 * np.abs(graph).max(), apart
    assert _cosines(graph, compiled).min() > 0.999


def _cosines(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray((one * other).sum(-1) / np.linalg.norm(one, axis=-1) / np.linalg.norm(other, axis=-1))


@pytest.mark.parametrize("quant", ["q8_0", "q4_0"])
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_those_of_the_graph(kernel: Kernel, family: str, quant: str) -> None:
    decoder = _decoder(kernel, family, quant, tokens=640)
    pages = list(range(decoder.pages))[::-1]
    mine, other = pages[:10], pages[10:]
    decoder.compute([Span(TOKENS[:290], 0, mine, 0), Span(TOKENS[:40], 0, other, 0)])
    # Over the end of a page, and over what a window of 64 sees.
    graph, compiled = _both(decoder, (TOKENS[290:293], 290, mine, 3), (TOKENS[40:41], 40, other, 1))
    _alike(graph, compiled)
    graph, compiled = _both(decoder, (TOKENS[:5], 0, other, 2))
    _alike(graph, compiled)


@pytest.mark.parametrize("family", ["qwen2", "mistral"])
def test_a_long_text_is_looked_at_by_several_threads(kernel: Kernel, family: str) -> None:
    decoder = _decoder(kernel, family, "q8_0")
    pages = list(range(decoder.pages))[::-1]
    decoder.compute([Span(TOKENS[:1213], 0, pages[:40], 0), Span(TOKENS[:20], 0, pages[40:], 0)])
    # The tokens lie on two pages. A short text beside it has as many parts, most of them empty.
    graph, compiled = _both(decoder, (TOKENS[1213:1219], 1213, pages[:40], 6), (TOKENS[20:21], 20, pages[40:], 1))
    _alike(graph, compiled)


def test_with_keys_and_values_of_16_bits_they_are_near(kernel: Kernel) -> None:
    decoder = _decoder(kernel, "qwen3", "q4_0", "bf16")
    pages = list(range(decoder.pages))
    decoder.compute([Span(TOKENS[:300], 0, pages, 0)])
    graph, compiled = _both(decoder, (TOKENS[300:304], 300, pages, 4))
    assert _cosines(graph, compiled).min() > 0.999
    assert (graph.argmax(-1) == compiled.argmax(-1)).all()


def test_a_token_has_the_same_logits_in_any_company(kernel: Kernel) -> None:
    decoder = _decoder(kernel, "llama", "q4_0")
    pages = [list(range(at, at + 3)) for at in range(0, 36, 3)]
    decoder.compute([Span(TOKENS[at : at + 64], 0, pages[at], 0) for at in range(12)])
    together = [Span(TOKENS[64 : 64 + 2], 64, each, 2, written=True) for each in pages]
    whole = decoder.compute(together).copy()
    for at, span in enumerate(together):
        singly = [Span([token], 64 + n, span.pages, 1, written=True) for n, token in enumerate(span.tokens)]
        alone = [decoder.compute([each])[0].copy() for each in singly]
        assert np.array_equal(whole[2 * at : 2 * at + 2], alone)
    # Beside a prompt, and with none wanted in between.
    prompt = Span(TOKENS[200:300], 0, list(range(36, 40)), 2)
    [expected] = decoder.compute([Span(prompt.tokens, 0, prompt.pages, 1)]).copy()
    silent = Span(together[2].tokens, 64, pages[2], 0, written=True)
    mixed = decoder.compute([together[0], prompt, silent, together[1]])
    assert np.array_equal(mixed[[0, 1, 4, 5]], whole[:4])
    assert np.array_equal(mixed[3], expected)


def test_answers_beside_others_and_late_ones_are_those_of_one_alone(tmp_path: Path) -> None:
    spec = LocalModel.model_validate(
        {"engine": "openvino", "source": str(made("tiny", quant="q4_0")), "context": 256}, context={}
    )
    engine = PagedEngine(spec, made("tiny", quant="q4_0"), cache=given(tmp_path) / "cache")
    engine.load(lambda text: None)
    assert engine._decoder.compiled
    requests = [asking(each.prompt, 24) for each in examples(6, 2)]
    alone = [answered(engine, each)[0].text for each in requests]
    assert [each.text for each in answered(engine, *requests)] == alone
    assert all(alone)


@pytest.mark.parametrize("keys", [{"cache": "q8"}, {"weights": "float"}], ids=["cache", "weights"])
def test_what_it_has_not_goes_by_the_graph(tmp_path: Path, keys: dict[str, str]) -> None:
    quant = "f16" if "weights" in keys else "q8_0"
    path = made("tiny", quant=quant)
    spec = LocalModel.model_validate({"engine": "openvino", "source": str(path), "context": 256, **keys}, context={})
    engine = PagedEngine(spec, path, cache=given(tmp_path) / "cache")
    engine.load(lambda text: None)
    assert not engine._decoder.compiled
    [example] = examples(1, 2)
    assert answered(engine, asking(example.prompt, 24))[0].text


def test_the_trial_takes_it_and_refuses_one_that_computes_otherwise(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial.decodes(kernel)
    monkeypatch.setattr("server.models.engines.paged.decoding.np.cos", np.sin)
    with pytest.raises(RuntimeError, match=r"its decoder's logits are up to .* from the graph's"):
        trial.decodes(kernel)
