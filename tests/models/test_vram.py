"""What models take of a GPU's memory, by their files' headers; and what does not fit is refused."""

from dataclasses import replace
from pathlib import Path

import pytest

from config import Recipe
from config.model import LocalModel
from server.models.cuda import Gpu
from server.models.fit import Memory, Plan, gpu_room, overfull, plans
from server.models.vram import needed
from tests.making import made

GB = 10**9


def _spec(**keys: object) -> LocalModel:
    folder = made("random", format="safetensors")
    return LocalModel.model_validate({"engine": "exllamav2", "source": str(folder), **keys}, context={})


def _needed(tokens: int = 4096, engine: str = "exllamav2", **keys: object) -> tuple[int, int, int]:
    spec = _spec(**keys)
    drafter = spec.draft.path if spec.draft is not None and not spec.draft.is_ngram else None
    return needed(engine, spec, spec.source.path, drafter, tokens)


def test_weights_are_counted_in_16_bits_without_the_table_that_stays_on_the_processor() -> None:
    layers = 2 * (256 * 256 * 2 + 2 * 256 * 128 + 3 * 256 * 512 + 2 * 256) + 256
    assert _needed()[0] == 2 * (layers + 2048 * 256)
    assert _needed(engine="exllamav3")[0] == 2 * (layers + 2 * 2048 * 256)


@pytest.mark.parametrize(("cache", "bits"), [("fp16", 16), ("q8", 8.5), ("q6", 6.5), ("q4", 4.5)])
def test_the_cache_is_counted_by_its_kind_and_its_pages(cache: str, bits: float) -> None:
    values = 2 * 2 * 2 * 64
    assert _needed(4096, cache=cache)[1] == int(values * 4096 * bits / 8)
    assert _needed(4097, cache=cache)[1] == int(values * (4096 + 256) * bits / 8)


def test_a_draft_counts_twice_and_in_16_bits() -> None:
    alone, both = _needed(cache="q4"), _needed(cache="q4", draft=str(made("random", format="safetensors")))
    assert both[0] == 2 * alone[0]
    assert both[1] == alone[1] + 2 * 2 * 2 * 2 * 64 * 4096


def _plan(name: str, memory: Memory, **keys: object) -> Plan:
    return Plan(name, _spec(**keys), memory=memory)


def test_a_gpu_and_the_processor_have_memories_of_their_own(empty: Recipe) -> None:
    gpu, other = _plan("chat", Memory(8 * GB, GB, GB, 16384, gpu=True)), _plan("small", Memory(3 * GB))
    assert overfull(empty, [gpu, other], 4 * GB, 12 * GB) == []
    assert overfull(empty, [gpu, other], 4 * GB, None) == []
    [fault] = overfull(empty, [gpu, other], 4 * GB, 9 * GB)
    assert "models.chat: needs 10.0 GB (weights 8.0 GB + cache 1.0 GB + rest 1.0 GB) of GPU memory" in fault
    assert "9.0 GB are free" in fault
    [fault] = overfull(empty, [gpu, replace(gpu, name="twice")], 4 * GB, 12 * GB)
    assert "together they need 20.0 GB of GPU memory and 12.0 GB are free" in fault


def test_what_nothing_can_serve_takes_no_memory(empty: Recipe) -> None:
    plan = replace(_plan("chat", Memory(8 * GB, gpu=True)), fault="no CUDA device")
    assert overfull(empty, [plan], GB, GB) == []


def test_without_a_gpu_the_estimate_is_told_with_the_reason(tmp_path: Path) -> None:
    recipe = Recipe.model_validate({"version": 1, "server": {"data": str(tmp_path)}, "models": {"chat": _spec()}})
    [plan] = plans(recipe)
    assert plan.memory is not None and plan.memory.gpu and plan.memory.weights > 0
    assert plan.fault is not None and "the engine exllamav2 cannot serve it: " in plan.fault


def test_what_is_free_is_that_of_all_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    for found, free in (
        ((), None),
        ((Gpu("a", "9.0", 4 * GB, 3 * GB), Gpu("b", "9.0", 4 * GB, GB)), 4 * GB),
        ((Gpu("a", "9.0", 4 * GB, 3 * GB), Gpu("mig", "8.0")), None),
    ):
        monkeypatch.setattr("server.models.cuda.gpus", lambda found=found: found)
        assert gpu_room() == free


@pytest.fixture
def empty(tmp_path: Path) -> Recipe:
    return Recipe.model_validate(
        {"version": 1, "server": {"data": str(tmp_path)}, "models": {"echo": {"engine": "echo"}}}
    )
