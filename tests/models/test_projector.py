"""A projector and its model: what is told where they do not belong together."""

import io
from pathlib import Path

import gguf
import pytest
from rich.console import Console

from config import load
from config.model import Projector, Source
from server.models.engines import create
from server.models.fit import plans
from server.models.hub import Access, located
from server.models.projector import check
from server.policies.backup.sources import groups
from server.pulling import pull, show
from tests.hub import Repository, serving_hub


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("data")
    for name in ("sight", "automaton"):
        located(Source(f"made:{name}"), data, download=False, progress=lambda _: None)
    return data


def file(data: Path, name: str) -> Path:
    return data / "cache" / "made" / name / f"{name}.gguf"


def sight(data: Path) -> Path:
    return located(Projector("made:sight"), data, download=False, progress=lambda _: None)


def written(path: Path, **flags: bool) -> Path:
    writer = gguf.GGUFWriter(path, "clip")
    for key, value in flags.items():
        writer.add_bool(f"clip.{key}", value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_one_that_was_made_for_the_model_is_right(data: Path) -> None:
    check(file(data, "sight"), sight(data))


def test_one_for_another_model_none_and_one_that_only_hears_are_told(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"was not made for automaton\.gguf, whose embeddings are 128 wide"):
        check(file(data, "automaton"), sight(data))
    with pytest.raises(ValueError, match=r"is no projector .*, but a model of architecture llama"):
        check(file(data, "sight"), file(data, "automaton"))
    hears = written(tmp_path / "hears.gguf", has_audio_encoder=True)
    with pytest.raises(ValueError, match="without a vision encoder"):
        check(file(data, "sight"), hears)


def test_a_plan_has_the_projector_in_its_memory_and_its_faults(data: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"version: 1\nserver: {{data: '{data}'}}\nmodels:\n"
        "  blind: {engine: llamacpp, source: 'made:sight'}\n"
        "  sees: {engine: auto, source: 'made:sight', projector: 'made:sight'}\n"
        f"  wrong: {{engine: auto, source: 'made:automaton', projector: '{sight(data)}'}}\n"
        "  away: {engine: auto, source: 'made:sight', projector: 'hf:a/b/mmproj.gguf'}\n",
        encoding="utf-8",
    )
    blind, sees, wrong, away = plans(load(recipe))
    assert sees.choice is not None and sees.choice.engine == "llamacpp"
    assert sees.memory is not None and blind.memory is not None
    assert sees.memory.weights == blind.memory.weights + sight(data).stat().st_size
    assert wrong.fault is not None and wrong.fault.startswith(f"{sight(data)}: was not made for automaton.gguf")
    assert away.absent


def test_one_on_the_hub_is_fetched_with_its_model_and_copied_with_it(data: Path, tmp_path: Path) -> None:
    files = {"sight.gguf": file(data, "sight").read_bytes(), "mmproj.gguf": sight(data).read_bytes()}
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "version: 1\nserver: {data: ./data}\nmodels:\n"
        "  sees: {engine: auto, source: 'hf:tests/seeing/sight.gguf', projector: 'hf:tests/seeing/mmproj.gguf'}\n",
        encoding="utf-8",
    )
    told = load(recipe)
    out, err = Console(file=io.StringIO(), width=200), Console(file=io.StringIO(), width=200)
    [plan] = plans(told)
    assert plan.absent
    with serving_hub(seeing=Repository(files)) as hub:
        assert pull(told, [], None, out, err, Access(hub.url)) == 0
    [plan] = plans(told)
    assert (plan.absent, plan.fault) == (False, None)
    engine, choice = create(told.models["sees"], told.server.data)
    assert choice.engine == "llamacpp"
    assert "images" in engine.load(lambda _: None).honours
    engine.close()
    with groups(told, ["models"], with_cold=False) as (found, left_out):
        assert ([group.name for group in found], left_out) == (["models/sees", "models/sees.projector"], ())
    show(told, out)
    assert "sees, projector" in out.file.getvalue()
