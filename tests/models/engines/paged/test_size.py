"""What is predicted from a header is what the runtime then holds."""

from pathlib import Path

import pytest

from server.models.engines.paged.gguf_file import GgufFile
from server.models.engines.paged.runtime import Decoder
from server.models.engines.paged.size import cache_of, predicted
from server.models.engines.paged.weights import WeightsError
from tests.making import made
from tests.making.shapes import FAMILIES

_CASES = [("f32", "auto"), ("f32", "q8"), ("bf16", "auto"), ("bf16", "bf16")]


@pytest.mark.parametrize(("precision", "cache"), _CASES)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_cache_takes_what_was_predicted(family: str, precision: str, cache: str) -> None:
    path = made("random", family=family)
    file = GgufFile(path)
    decoder = Decoder(file, tokens=100, precision=precision, threads=1, cache=cache)
    told = predicted(path, keep_floats=False, tokens=100, cache=cache, precision=precision)
    assert told.cache == decoder.cache_bytes == 128 * cache_of(file.shape, cache, precision)


@pytest.mark.parametrize(("quant", "keep_floats"), [("q8_0", False), ("q4_0", False), ("f32", True), ("f16", False)])
def test_the_weights_are_at_least_those_of_the_graph_twice(quant: str, keep_floats: bool) -> None:
    path = made("random", family="qwen3", quant=quant)
    held = Decoder(GgufFile(path, keep_floats=keep_floats), tokens=32, precision="f32", threads=1).weights_bytes
    told = predicted(path, keep_floats=keep_floats, tokens=32, cache="auto", precision="f32")
    assert 1.9 * held < told.weights < 2.3 * held
    assert told.total == told.weights + told.cache + told.rest


def test_a_folder_is_predicted_as_its_quantised_file() -> None:
    sizes = [
        predicted(path, keep_floats=False, tokens=64, cache="auto", precision="bf16")
        for path in (made("random"), made("random", format="safetensors"))
    ]
    assert sizes[0] == sizes[1]


def test_a_broken_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    with pytest.raises(WeightsError, match=r"m\.gguf: cut off"):
        predicted(tmp_path / "m.gguf", keep_floats=False, tokens=64, cache="auto", precision="f32")
