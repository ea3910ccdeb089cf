"""The compiled decoder: however a sequence is cut and wherever its pages are, the logits are the same."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from server.models.engines.paged import graph, trial
from server.models.engines.paged.folder import Folder
from server.models.engines.paged.gguf_file import GgufFile
from server.models.engines.paged.runtime import ROUNDED, Decoder, precision_of
from server.models.engines.paged.span import Span
from server.models.engines.paged.weights import Float, Int8, Matrix, joined
from server.models.header import WeightsError
from server.models.made.shapes import FAMILIES
from tests.making import made

TOKENS = [int(token) for token in np.random.default_rng(3).integers(0, 1500, 150)]


def decoder(path: Path, *, precision: str = "f32", cache: str = "auto", tokens: int = 512) -> Decoder:
    floats = precision == "f32"
    weights = GgufFile(path, keep_floats=floats) if path.suffix == ".gguf" else Folder(path, keep_floats=floats)
    return Decoder(weights, tokens=tokens, precision=precision, threads=2, cache=cache)


def whole(made_of: Decoder, wanted: int = 1) -> NDArray[np.float32]:
    pages = list(range(made_of.pages))
    return made_of.compute([Span(TOKENS, 0, pages, wanted)]).copy()


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> Decoder:
    return decoder(made("random", family=request.param))


@pytest.mark.parametrize("name", FAMILIES)
def test_logits_from_a_gguf_file_equal_those_from_the_folder(name: str) -> None:
    file, folder = (decoder(made("random", family=name, format=form)) for form in ("gguf", "safetensors"))
    np.testing.assert_allclose(whole(file, 9), whole(folder, 9), atol=1e-4)


def test_a_prompt_in_pieces_has_the_logits_of_one_pass(family: Decoder) -> None:
    expected = whole(family)
    pages = list(range(family.pages))
    for start, end in ((0, 1), (1, 40), (40, 64), (64, 149)):
        assert not len(family.compute([Span(TOKENS[start:end], start, pages, 0)]))
    found = family.compute([Span(TOKENS[149:], 149, pages, 1)])
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_pages_may_be_in_any_order(family: Decoder) -> None:
    expected = whole(family)
    scattered = [int(page) for page in np.random.default_rng(5).permutation(family.pages)]
    np.testing.assert_allclose(family.compute([Span(TOKENS, 0, scattered, 1)]), expected, atol=1e-4)


def test_the_last_positions_wanted_come_in_their_order_and_spans_in_theirs(family: Decoder) -> None:
    expected = whole(family, 4)
    pages = list(range(family.pages))
    spans = [
        Span(TOKENS[:20], 0, pages[8:9], 0),
        Span(TOKENS, 0, pages[:8], 4),
        Span(TOKENS[:147], 0, pages[9:], 1),
    ]
    found = family.compute(spans)
    assert found.shape == (5, expected.shape[1])
    np.testing.assert_allclose(found[:4], expected, atol=1e-4)
    np.testing.assert_allclose(found[4], expected[0], atol=1e-4)


def test_a_step_of_other_sizes_leaves_nothing_of_the_last(family: Decoder) -> None:
    expected = whole(family)
    pages = list(range(family.pages))
    family.compute([Span(TOKENS[:3], 0, pages[at : at + 1], 1) for at in range(6)])
    np.testing.assert_allclose(whole(family), expected, atol=1e-4)


@pytest.mark.parametrize("quant", ["q8_0", "q4_0"])
def test_quantised_weights_kept_as_they_are_say_what_their_floats_say(quant: str) -> None:
    file = made("random", family="qwen3", quant=quant)

    class Unpacked(GgufFile):
        """The same values as floats."""

        def matrix(self, name: str, layer: int | None = None) -> Matrix:
            return Float(self._floats(self._tensor(name, layer)))

    packed = Decoder(GgufFile(file), tokens=512, precision="f32", threads=2)
    floats = Decoder(Unpacked(file), tokens=512, precision="f32", threads=2)
    np.testing.assert_allclose(whole(packed, 5), whole(floats, 5), atol=2e-3)


def _similar(left: NDArray[np.float32], right: NDArray[np.float32]) -> float:
    return float((left * right).sum() / np.linalg.norm(left) / np.linalg.norm(right))


@pytest.mark.parametrize("cache", ["f32", "q8"])
def test_a_cache_of_fewer_bits_is_smaller_and_near(cache: str) -> None:
    path = made("random", family="qwen3")
    exact, kept = decoder(path), decoder(path, cache=cache)
    assert _similar(whole(exact), whole(kept)) > (0.9999 if cache == "f32" else 0.99)
    assert (kept.cache_bytes < exact.cache_bytes / 2) == (cache == "q8")


# What OpenVINO says of two kinds of processor.
_AVX2 = ["FP32", "INT8", "BIN", "EXPORT_IMPORT"]
_AVX512 = ["FP32", "INT8", "BIN", "BF16", "EXPORT_IMPORT"]


@pytest.mark.parametrize(
    ("wanted", "capabilities", "precision"),
    [
        ("auto", _AVX512, "bf16"),
        ("auto", _AVX2, "f32 with 8-bit activations"),
        ("f32", _AVX512, "f32"),
        ("f32", _AVX2, "f32"),
        ("bf16", _AVX512, "bf16"),
    ],
)
def test_the_processor_decides_what_auto_computes_in(wanted: str, capabilities: list[str], precision: str) -> None:
    assert precision_of(wanted, capabilities) == precision


def test_a_precision_that_the_processor_lacks_is_refused() -> None:
    with pytest.raises(ValueError, match="precision: this processor does not compute in bf16; use auto or f32"):
        precision_of("bf16", _AVX2)


@pytest.mark.parametrize("quant", ["q8_0", "q4_0"])
def test_activations_are_rounded_only_where_that_is_the_precision(quant: str) -> None:
    file = GgufFile(made("random", family="qwen3", quant=quant))
    exact, rounded = (Decoder(file, tokens=512, precision=each, threads=2) for each in ("f32", ROUNDED))
    groups = [each._compiled.get_property("DYNAMIC_QUANTIZATION_GROUP_SIZE") for each in (exact, rounded)]
    assert groups == [0, 32]
    assert _similar(whole(exact, 9), whole(rounded, 9)) > 0.999


@pytest.mark.parametrize(("precision", "cache"), [("f32", "bf16"), ("bf16", "f32")])
def test_a_cache_that_the_precision_does_not_have_is_refused(precision: str, cache: str) -> None:
    with pytest.raises(WeightsError, match=f"cache {cache} does not go with precision {precision}; auto"):
        decoder(made("random"), precision=precision, cache=cache)


def test_matrices_of_different_kinds_are_not_joined() -> None:
    floats = Float(np.zeros((2, 32), np.float32))
    ints = Int8(np.zeros((2, 1, 32), np.int8), np.zeros((2, 1, 1), np.float16))
    assert joined([floats, ints]) is None
    assert joined([ints, floats]) is None
    both = joined([ints, ints])
    assert isinstance(both, Int8)
    assert both.values.shape == (4, 1, 32)


def test_the_trial_passes_with_the_installed_runtime() -> None:
    trial.run()


def test_activations_of_8_bits_are_tried_before_they_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    assert trial.rounds()

    def without_kernel(self: Decoder, spans: list[Span]) -> NDArray[np.float32]:
        raise RuntimeError("could not create a primitive descriptor")

    monkeypatch.setattr(Decoder, "compute", without_kernel)
    assert not trial.rounds()


@pytest.mark.parametrize("wrong", ["epsilon", "rotation", "scale"])
def test_the_trial_refuses_arithmetic_that_is_off(monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    built: Callable[..., object] = graph._rotation
    float_of = graph._float
    if wrong == "rotation":
        monkeypatch.setattr(graph, "_rotation", lambda positions, turns: built(positions, turns * 1.02))
    elif wrong == "epsilon":
        monkeypatch.setattr(graph, "_float", lambda value: float_of(0.05 if value == 1e-6 else value))
    else:
        monkeypatch.setattr(graph, "_float", lambda value: float_of(0.2 if value == 32**-0.5 else value))
    with pytest.raises(RuntimeError, match="computes paged attention differently"):
        trial.run()
