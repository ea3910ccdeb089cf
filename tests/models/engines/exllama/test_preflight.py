"""Which folders ExLlamaV2 and V3 are given: architectures, kinds of weights, and config.json in words they read."""

import json
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from server.models.engines.exllama.preflight import V2, V3, objection, quantised, rewritten
from server.models.header import WeightsError, config

LLAMA: dict[str, Any] = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu"}


def _folder(folder: Path, told: dict[str, Any], *tensors: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(told), encoding="utf-8")
    (folder / "tokenizer.json").write_text("{}", encoding="utf-8")
    save_file(
        {name: np.zeros(1, np.float32) for name in tensors or ["model.norm.weight"]}, folder / "model.safetensors"
    )
    return folder


def _source(package: str) -> Path:
    found = find_spec(package)
    if found is None or found.origin is None:
        pytest.skip(f"NOT TESTED: {package} is not installed: run scripts/setup dev")
    return Path(found.origin).parent


def test_the_architectures_of_v2_are_those_its_own_code_names() -> None:
    text = (_source("exllamav2") / "architecture.py").read_text(encoding="utf-8")
    named = set(re.findall(r'"(\w+(?:ForCausalLM|LMHeadModel|ForConditionalGeneration))"', text))
    assert named >= V2
    assert named - V2 == {"GemmoeForCausalLM", "IndexForCausalLM", "LlavaForConditionalGeneration"}


def test_the_architectures_of_v3_are_those_its_own_code_names() -> None:
    files = (_source("exllamav3") / "architecture").rglob("*.py")
    named = {name for file in files for name in re.findall(r'arch_string = "(\w+)"', file.read_text(encoding="utf-8"))}
    assert named >= V3


@pytest.mark.parametrize(
    ("told", "tensors", "kind"),
    [
        ({}, (), "16 bits"),
        ({"quantization_config": {"quant_method": "exl2", "bits": 4.25}}, (), "EXL2 of 4.25 bits"),
        ({"quantization_config": {"quant_method": "exl3", "bits": 4.0}}, (), "EXL3 of 4 bits"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 128}}, (), "GPTQ of 4 bits"),
        ({"quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 128}}, (), "AWQ of 4 bits"),
        ({}, ("model.layers.0.mlp.up_proj.q_weight",), "EXL2"),
        ({}, ("model.layers.0.mlp.up_proj.trellis",), "EXL3"),
    ],
)
def test_the_kind_of_weights_is_told_by_config_or_tensors(
    told: dict[str, Any], tensors: tuple[str, ...], kind: str, tmp_path: Path
) -> None:
    folder = _folder(tmp_path, LLAMA | told, *tensors)
    assert str(quantised(folder, config(folder))) == kind


@pytest.mark.parametrize(
    ("file", "said", "kind"),
    [
        ("quantize_config.json", {"bits": 4, "group_size": 32}, "gptq"),
        ("quant_config.json", {"w_bit": 4, "q_group_size": 64, "zero_point": True, "version": "GEMM"}, "awq"),
    ],
)
def test_older_folders_say_it_in_a_file_of_its_own(file: str, said: dict[str, Any], kind: str, tmp_path: Path) -> None:
    folder = _folder(tmp_path, LLAMA)
    (folder / file).write_text(json.dumps(said), encoding="utf-8")
    found = quantised(folder, config(folder))
    assert (found.kind, found.bits, found.group, found.odd) == (kind, 4.0, said.get("group_size", 64), None)
    assert objection("exllamav2", folder) is None


def _gptq(**said: object) -> dict[str, Any]:
    return {"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 128, **said}}


def _awq(**said: object) -> dict[str, Any]:
    return {"quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 128, **said}}


@pytest.mark.parametrize(
    ("engine", "told", "reason"),
    [
        ("exllamav2", {"architectures": ["GptOssForCausalLM"]}, "does not compute GptOssForCausalLM"),
        ("exllamav3", {"architectures": ["StarcoderForCausalLM"]}, "does not compute StarcoderForCausalLM"),
        ("exllamav2", {"architectures": ["LlamaForCausalLM", "MistralForCausalLM"]}, "should name one architecture"),
        ("exllamav2", _gptq(bits=8), "GPTQ of 4 bits only, and there are 8"),
        ("exllamav2", _gptq(bits=3), "GPTQ of 4 bits only, and there are 3"),
        ("exllamav2", _gptq(group_size=96), "power of two only, and there are 96"),
        ("exllamav2", _awq(version="gemv"), "layout gemm only, and there is gemv"),
        ("exllamav2", _awq(zero_point=False), "zero points only"),
        ("exllamav2", {"quantization_config": {"quant_method": "bitsandbytes"}}, "quantised by bitsandbytes"),
        ("exllamav2", {"quantization_config": {"quant_method": "exl3"}}, "quantised by exl3"),
        ("exllamav3", _gptq(), "quantised by gptq"),
        ("exllamav3", {"quantization_config": {"quant_method": "exl2"}}, "quantised by exl2"),
        ("exllamav2", {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "rope scaling of type dynamic"),
        ("exllamav2", {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}}, "rope scaling of type dynamic"),
        ("exllamav2", {"hidden_act": "gelu"}, "computes silu, and hidden_act is gelu"),
    ],
)
def test_what_would_be_read_as_something_else_is_refused(
    engine: str, told: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    found = objection(engine, _folder(tmp_path, LLAMA | told))
    assert found is not None and reason in found


def test_qwen2_with_a_window_is_refused(tmp_path: Path) -> None:
    told = {"architectures": ["Qwen2ForCausalLM"], "use_sliding_window": True, "sliding_window": 4096}
    assert "no sliding window" in (objection("exllamav2", _folder(tmp_path, told)) or "")


@pytest.mark.parametrize("told", [{}, _gptq(), _gptq(group_size=-1), _awq(version="GEMM")])
def test_what_is_read_has_no_objection(told: dict[str, Any], tmp_path: Path) -> None:
    assert objection("exllamav2", _folder(tmp_path, LLAMA | told)) is None


def test_a_folder_without_its_tokenizer_is_refused(tmp_path: Path) -> None:
    folder = _folder(tmp_path, LLAMA)
    (folder / "tokenizer.json").unlink()
    assert "tokenizer.json" in (objection("exllamav2", folder) or "")


def test_a_broken_header_is_named(tmp_path: Path) -> None:
    folder = _folder(tmp_path, LLAMA)
    (folder / "model.safetensors").write_bytes(b"\xff" * 20)
    with pytest.raises(WeightsError, match=r"model\.safetensors"):
        objection("exllamav2", folder)


# ---- config.json ----------------------------------------------------------------------------------------------------

LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
YARN = {"factor": 4.0, "original_max_position_embeddings": 32768}


@pytest.mark.parametrize(
    ("newer", "older"),
    [
        ({"rope_theta": 500000.0, "rope_type": "default"}, {"rope_theta": 500000.0}),
        (
            {"rope_theta": 500000.0, "rope_type": "llama3", **LLAMA3},
            {"rope_theta": 500000.0, "rope_scaling": {"rope_type": "llama3", **LLAMA3}},
        ),
        (
            {"rope_theta": 1e6, "rope_type": "yarn", **YARN},
            {"rope_theta": 1e6, "rope_scaling": {"rope_type": "yarn", **YARN}},
        ),
        (
            {"rope_theta": 1e6, "rope_type": "default", "mrope_section": [16, 24, 24]},
            {"rope_theta": 1e6, "rope_scaling": {"rope_type": "mrope", "mrope_section": [16, 24, 24]}},
        ),
        (
            {"rope_theta": 10000.0, "rope_type": "default", "partial_rotary_factor": 0.5},
            {"rope_theta": 10000.0, "partial_rotary_factor": 0.5},
        ),
        (
            {
                "full_attention": {"rope_theta": 1e6, "rope_type": "linear", "factor": 8.0},
                "sliding_attention": {"rope_theta": 10000.0, "rope_type": "default"},
            },
            {"rope_theta": 1e6, "rope_scaling": {"rope_type": "linear", "factor": 8.0}},
        ),
    ],
    ids=["default", "llama3", "yarn", "mrope", "partial", "by layer"],
)
def test_the_rope_of_transformers_5_becomes_that_of_4(newer: dict[str, Any], older: dict[str, Any]) -> None:
    made = rewritten({"rope_parameters": newer})
    assert {key: made[key] for key in older} == older
    assert ("rope_scaling" in made) == ("rope_scaling" in older)
    inner = rewritten({"text_config": {"rope_parameters": newer}})["text_config"]
    assert {key: inner[key] for key in older} == older


def test_longrope_has_its_length_where_v2_looks_for_it() -> None:
    told = {
        "rope_type": "longrope",
        "long_factor": [1.0],
        "short_factor": [1.0],
        "original_max_position_embeddings": 4096,
    }
    assert rewritten({"rope_parameters": told})["original_max_position_embeddings"] == 4096


def test_a_type_is_named_once_and_only_for_something() -> None:
    twice = {"rope_scaling": {"type": "linear", "rope_type": "linear", "factor": 2.0}}
    assert rewritten(twice)["rope_scaling"] == {"rope_type": "linear", "factor": 2.0}
    assert rewritten({"rope_scaling": {"rope_type": "default"}})["rope_scaling"] is None


def test_what_is_in_older_words_comes_back_as_it_is() -> None:
    told = {**LLAMA, "rope_theta": 10000.0, "torch_dtype": "float16", "rope_scaling": None}
    assert rewritten(told) == told


def test_the_type_of_numbers_has_its_older_name_as_well() -> None:
    assert rewritten({"dtype": "bfloat16"})["torch_dtype"] == "bfloat16"
