"""Which folders see pictures on a GPU, and what is told where one does not; the rules of their towers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from config.model import LocalModel
from server.models.engines.exllama.folder import readable
from server.models.engines.exllama.generator import beside
from server.models.engines.exllama.preflight import ARCHITECTURES, beside_tower, rewritten
from server.models.engines.exllama.sight import PROCESSOR, SEES, blind, in_tower, processor
from server.models.engines.exllama.towers import enclosed, grown, lined, unlined
from server.models.header import config
from server.models.hub import _COMPANY
from server.models.vram import needed

SCALED: dict[str, Any] = {"image_processor_type": "Qwen2VLImageProcessorFast", "merge_size": 2}
TOLD: dict[str, Any] = {
    "architectures": ["Qwen2VLForConditionalGeneration"],
    "image_token_id": 7,
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "vision_config": {"embed_dim": 16, "mlp_ratio": 4, "patch_size": 14, "spatial_merge_size": 2},
}
TENSORS = ("model.norm.weight", "visual.blocks.0.norm1.weight")


def _folder(folder: Path, told: dict[str, Any], *tensors: str, scaled: dict[str, Any] | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(told), encoding="utf-8")
    (folder / "tokenizer.json").write_text("{}", encoding="utf-8")
    if scaled is not None:
        (folder / "processor_config.json").write_text(json.dumps({"image_processor": scaled}), encoding="utf-8")
    save_file({name: np.zeros(1000, np.float16) for name in tensors or TENSORS}, folder / "model.safetensors")
    return folder


def test_what_sees_is_computed_at_all() -> None:
    assert all(SEES[engine] <= ARCHITECTURES[engine] for engine in SEES)


@pytest.mark.parametrize(
    ("changes", "tensors", "scaled", "drafted", "why"),
    [
        ({}, TENSORS, SCALED, False, None),
        ({"vision_config": None}, TENSORS, SCALED, False, "it has no vision tower"),
        ({"image_token_id": None}, TENSORS, SCALED, False, "config.json names no image_token_id"),
        ({}, TENSORS, None, False, f"there is no {PROCESSOR}"),
        ({}, TENSORS[:1], SCALED, False, "its files have no vision tower"),
        ({}, TENSORS, SCALED, True, "it has a draft, which is another model and would not see them"),
        (
            {"architectures": ["Gemma3ForConditionalGeneration"]},
            TENSORS,
            SCALED,
            False,
            "exllamav2 does not compute the pictures of Gemma3ForConditionalGeneration",
        ),
        (
            {"architectures": ["Mistral3ForConditionalGeneration"], "vision_config": {"hidden_act": "gelu"}},
            TENSORS,
            SCALED,
            False,
            "its vision tower computes gelu, and exllamav2 silu only",
        ),
    ],
)
def test_why_a_model_sees_no_pictures(
    tmp_path: Path,
    changes: dict[str, Any],
    tensors: tuple[str, ...],
    scaled: dict[str, Any] | None,
    drafted: bool,
    why: str | None,
) -> None:
    folder = _folder(tmp_path / "model", {**TOLD, **changes}, *tensors, scaled=scaled)
    assert blind("exllamav2", folder, config(folder), drafted=drafted) == why


def test_how_pictures_are_scaled_is_said_in_the_words_of_each_package(tmp_path: Path) -> None:
    edges = {"shortest_edge": 100, "longest_edge": 2000}
    folder = _folder(tmp_path / "new", TOLD, scaled={**SCALED, "size": edges})
    second, third = (processor(engine, folder) for engine in ("exllamav2", "exllamav3"))
    assert second is not None and third is not None
    assert (second["image_processor_type"], third["image_processor_type"]) == (
        "Qwen2VLImageProcessor",
        "Qwen2VLImageProcessorFast",
    )
    assert (second["min_pixels"], second["max_pixels"]) == (100, 2000)
    older = {"image_processor_type": "Qwen2VLImageProcessor", "min_pixels": 100, "max_pixels": 2000}
    (folder / PROCESSOR).write_text(json.dumps(older), encoding="utf-8")
    assert processor("exllamav2", folder) == {**older, "size": edges}
    third = processor("exllamav3", folder)
    assert third is not None and third["size"] == edges
    pixtral = {"image_processor_type": "PixtralImageProcessorFast", "size": {"longest_edge": 1540}}
    (folder / PROCESSOR).write_text(json.dumps(pixtral), encoding="utf-8")
    assert processor("exllamav2", folder) == {**pixtral, "image_processor_type": "PixtralImageProcessor"}


def test_what_says_how_pictures_are_scaled_comes_with_the_weights() -> None:
    assert {PROCESSOR, "processor_config.json"} <= _COMPANY


def test_a_folder_of_transformers_5_is_given_in_older_words_and_left_as_it_is(tmp_path: Path) -> None:
    told = {**TOLD, "vision_config": {**TOLD["vision_config"], "rope_parameters": {"rope_theta": 1e4}}}
    folder = _folder(tmp_path / "model", told, scaled=SCALED)
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    with readable("exllamav2", folder, tmp_path / "cache", lambda _: None) as read:
        tower = config(read)["vision_config"]
        assert (tower["rope_theta"], tower["spatial_patch_size"]) == (1e4, 14) and "rope_parameters" not in tower
        assert json.loads((read / PROCESSOR).read_text())["image_processor_type"] == "Qwen2VLImageProcessor"
        assert (read / "model.safetensors").samefile(folder / "model.safetensors")
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    assert rewritten(config_of := {**TOLD, "vision_config": tower}) == config_of


def test_the_words_that_v3_reads_of_qwens_towers() -> None:
    new = {
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        "text_config": {"hidden_size": 32, "model_type": "qwen2_5_vl_text"},
        "vision_config": {"model_type": "qwen2_5_vl_vision", "patch_size": 14},
        "model_type": "qwen2_5_vl",
    }
    made = beside_tower(new)
    assert (made["hidden_size"], made["model_type"]) == (32, "qwen2_5_vl")
    assert made["vision_config"] == {"model_type": "qwen2_5_vl", "patch_size": 14, "spatial_patch_size": 14}
    later = {"architectures": ["Qwen3VLForConditionalGeneration"], "vision_config": {"model_type": "qwen3_vl_vision"}}
    assert beside_tower(later)["vision_config"] == {"model_type": "qwen3_vl"}
    other = {"architectures": ["LlamaForCausalLM"]}
    assert beside_tower(other) is other


def test_the_tower_counts_in_the_gpus_memory_where_it_is_loaded(tmp_path: Path) -> None:
    scaled = {**SCALED, "min_pixels": 3136, "max_pixels": 28 * 28 * 1000}
    folder = _folder(tmp_path / "sees", TOLD, scaled=scaled)
    blinded = _folder(tmp_path / "blind", TOLD)
    spec = LocalModel.model_validate({"engine": "exllamav2", "source": str(folder)}, context={})
    sees, not_seen = (needed("exllamav2", spec, each, None, 512) for each in (folder, blinded))
    assert sees[0] - not_seen[0] == 2 * 1000
    assert sees[1] == not_seen[1]
    assert sees[2] - not_seen[2] == 2 * 4000 * (6 * 16 + 3 * 64)
    assert in_tower("model.visual.patch_embed.proj.weight") and not in_tower("model.layers.0.mlp.up_proj.weight")


def test_the_tower_is_part_of_what_a_gpu_may_take() -> None:
    assert beside((), 5) == []
    assert beside((0.0, 4.0, 8.0), 2**30) == [0.0, 3.0, 8.0]
    assert beside((1.0,), 2**31) == [0.0]


def test_the_tokens_of_pictures() -> None:
    assert enclosed(3, 7, 1, 2) == [1, 7, 7, 7, 2]
    assert lined(2, 3, 7, 8, 9) == [7, 7, 7, 8, 7, 7, 7, 9]
    assert unlined([7, 7, 7, 8, 7, 7, 7, 8, 9]) == lined(2, 3, 7, 8, 9)
    assert grown((100, 60), 28) == (100, 60)
    assert grown((10, 40), 28) == (28, 112)
    with pytest.raises(ValueError, match="more than 200 times"):
        grown((1, 201), 1)
