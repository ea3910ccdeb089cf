"""What is predicted from a header is what the runtime then holds, and the worker's process."""

import asyncio
import sys
from pathlib import Path

import msgspec
import pytest

from config.model import LocalModel
from server.models.engine import Card, Generate, Sampling
from server.models.engines.paged.gguf_file import GgufFile
from server.models.engines.paged.runtime import ROUNDED, Decoder
from server.models.engines.paged.size import cache_of, held, predicted
from server.models.fit import estimate
from server.models.header import WeightsError
from server.models.made.shapes import FAMILIES
from server.models.service import EngineConfig
from server.worker import Worker
from tests.making import made

_CASES = [("f32", "auto"), ("f32", "q8"), ("bf16", "auto"), ("bf16", "q8")]


@pytest.mark.parametrize(("precision", "cache"), _CASES)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_cache_takes_what_was_predicted(family: str, precision: str, cache: str) -> None:
    path = made("random", family=family)
    file = GgufFile(path)
    decoder = Decoder(file, tokens=100, precision=precision, threads=1, cache=cache)
    told = predicted(path, keep_floats=False, tokens=100, cache=cache, precision=precision)
    assert told.cache == decoder.cache_bytes == 128 * cache_of(file.shape, cache, precision)


@pytest.mark.parametrize(("quant", "keep_floats"), [("q8_0", False), ("q4_0", False), ("f32", True), ("f16", False)])
def test_the_weights_are_those_of_the_graph_once(quant: str, keep_floats: bool) -> None:
    path = made("random", family="qwen3", quant=quant)
    file = GgufFile(path, keep_floats=keep_floats)
    constants = Decoder(file, tokens=32, precision="f32", threads=1).weights_bytes
    told = predicted(path, keep_floats=keep_floats, tokens=32, cache="auto", precision=ROUNDED)
    # The constants are the matrices, and norms and numbers beside them.
    assert 0.95 * constants < held(file) < constants
    assert 0.9 * constants < told.weights < 1.15 * constants
    assert told.total == told.weights + told.cache + told.graph + told.rest


def test_a_folder_is_predicted_as_its_quantised_file() -> None:
    sizes = [
        predicted(path, keep_floats=False, tokens=64, cache="auto", precision="bf16")
        for path in (made("random"), made("random", format="safetensors"))
    ]
    assert sizes[0] == sizes[1]


def test_a_broken_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    with pytest.raises(WeightsError, match=r"m\.gguf: .*cut off"):
        predicted(tmp_path / "m.gguf", keep_floats=False, tokens=64, cache="auto", precision="f32")


@pytest.mark.skipif(sys.platform != "linux", reason="the system tells what a process holds in a way of its own")
@pytest.mark.anyio
async def test_a_worker_holds_what_was_predicted_after_a_long_prompt(tmp_path: Path) -> None:
    path = made("random", shape="30m", quant="q8_0")
    keys = {"engine": "openvino", "source": str(path), "context": 2048, "cache_tokens": 2048}
    spec = LocalModel.model_validate(keys, context={})
    config = EngineConfig(spec, tmp_path, None).encode()
    prompt = [at % 5000 for at in range(2000)]
    async with asyncio.timeout(60), Worker("chat", "server.models.service:EngineService", config) as worker:
        await worker.wait_ready(60)
        assert worker.ready_body is not None
        assert msgspec.msgpack.decode(worker.ready_body, type=Card).precision in ("bf16", ROUNDED)
        asked = Generate(prompt=prompt, max_tokens=8, sampling=Sampling(ignore_eos=True))
        assert [items async for items in worker.call(msgspec.msgpack.encode(asked))]
        held_now = _resident(worker.pid)
    assert estimate("openvino", spec, path).total == pytest.approx(held_now, rel=0.15)


def _resident(process: int | None) -> int:
    """Bytes of memory that a process holds."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))
