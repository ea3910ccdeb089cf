"""Constants in a mapped file: the same values, on a disk that has room, and memory that can let go of them."""

import logging
import resource
import sys
from pathlib import Path

import numpy as np
import pytest

from server.models.engines.paged.constants import Constants
from server.models.engines.paged.gguf_file import GgufFile
from server.models.engines.paged.runtime import Decoder
from server.models.engines.paged.size import held
from server.models.engines.paged.span import Span
from server.models.header import WeightsError
from tests.making import made

ARRAY = np.random.default_rng(0).integers(-128, 127, (1000, 33, 32), np.int8)


def test_values_are_the_same_before_and_after_memory_lets_go(tmp_path: Path) -> None:
    constants = Constants(tmp_path / "cache", 2 * ARRAY.nbytes)
    small = np.arange(8, dtype=np.float16).reshape(2, 2, 2)
    kept = [constants.keep(each) for each in (ARRAY, small, ARRAY[::2])]
    for _ in range(2):
        for found, array in zip(kept, (ARRAY, small, ARRAY[::2]), strict=True):
            assert found.dtype == array.dtype
            np.testing.assert_array_equal(found, array)
        constants.release()
    assert ARRAY.nbytes * 3 // 2 + small.nbytes <= constants.mapped < ARRAY.nbytes * 3 // 2 + 256
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="the system tells what a process holds in a way of its own")
def test_what_is_let_go_of_is_not_held(tmp_path: Path) -> None:
    constants = Constants(tmp_path, 64 << 20)
    kept = constants.keep(np.ones(64 << 20, np.int8))
    assert int(kept.sum(dtype=np.int64)) == 64 << 20
    full = _files_held()
    constants.release()
    assert full - _files_held() > 60 << 20


def _files_held() -> int:
    """Bytes of mapped files that this process has in memory, those of disks in memory too."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(("RssFile", "RssShmem")))


@pytest.mark.parametrize("quant", ["q8_0", "q4_0", "f32"])
def test_a_graph_over_the_file_computes_the_same_bits(tmp_path: Path, quant: str) -> None:
    file = GgufFile(made("random", family="qwen3", quant=quant), keep_floats=True)
    constants = Constants(tmp_path, held(file))
    logits = []
    for each in (None, constants):
        decoder = Decoder(file, tokens=512, precision="f32", threads=2, constants=each)
        pages = list(range(decoder.pages))
        # Many at once and one alone: both are packed from the constants, the second after memory let go of them.
        logits.append(decoder.compute([Span(list(range(150)), 0, pages, 9)]).copy())
        logits.append(decoder.compute([Span([150], 150, pages, 1)]).copy())
    assert constants.mapped > 0.99 * held(file)
    np.testing.assert_array_equal(logits[0], logits[2])
    np.testing.assert_array_equal(logits[1], logits[3])


def test_a_disk_without_room_is_refused_by_its_folder(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=rf"{tmp_path}: .* GB are needed on this disk .* GB are free; make room"):
        Constants(tmp_path, 10**18)


def test_a_disk_that_fills_up_meanwhile_is_refused_by_its_folder(tmp_path: Path) -> None:
    constants = Constants(tmp_path, ARRAY.nbytes)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, limits[1]))
    try:
        with pytest.raises(WeightsError, match=f"{tmp_path}: cannot hold the weights while they are in use: "):
            constants.keep(ARRAY)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_where_no_file_can_be_the_arrays_stay_in_memory(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    with caplog.at_level(logging.WARNING):
        constants = Constants(tmp_path / "file" / "cache", ARRAY.nbytes)
    assert f"{tmp_path / 'file' / 'cache'} holds no mapped files" in caplog.text
    np.testing.assert_array_equal(constants.keep(ARRAY), ARRAY)
    constants.release()
    assert constants.mapped == 0
