"""The choice of engines and the paged engine agree: `auto` sends to openvino what is read there."""

from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models

from config.model import LocalModel
from server.models.choice import Machine, choose
from server.models.engines.paged.engine import read
from server.models.engines.sampling.cuts import CUTS
from server.models.families import FAMILIES, ROPE, TOKENIZERS
from server.models.header import WeightsError
from tests.making import made
from tests.models.engines.paged.writing import VOCABULARY, write_folder, write_gguf

MACHINE = Machine("linux", frozenset(["openvino", "llamacpp", "transformers"]))
TOKENS = [f"t{number}" for number in range(VOCABULARY)]
WORDS: dict[str, Any] = {
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "qwen2",
    "tokenizer.ggml.tokens": TOKENS,
    "tokenizer.ggml.token_type": [1] * VOCABULARY,
}


def chosen(path: Path) -> bool:
    spec = LocalModel.model_validate({"engine": "auto", "source": str(path)}, context={})
    return choose(spec, path, MACHINE).engine == "openvino"


def is_read(path: Path) -> bool:
    try:
        read(path, keep_floats=False)
    except WeightsError:
        return False
    return True


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "mistral"])
@pytest.mark.parametrize("kind", ["gguf", "safetensors"])
def test_every_family_is_chosen_and_read(family: str, kind: str) -> None:
    path = made("random", family=family, format=kind)
    assert chosen(path) and is_read(path)


def test_no_family_is_declared_that_is_not_made_here() -> None:
    assert {*FAMILIES["gguf"].values(), *FAMILIES["folder"].values()} == {"llama", "qwen2", "qwen3", "mistral"}


@pytest.mark.parametrize(
    ("fields", "serves"),
    [
        *(({"tokenizer.ggml.pre": cut}, True) for cut in CUTS),
        ({"tokenizer.ggml.pre": "viking"}, False),
        *(({"tokenizer.ggml.model": kind}, True) for kind in TOKENIZERS),
        ({"tokenizer.ggml.model": "bert"}, False),
        *(({"llama.rope.scaling.type": kind, "llama.rope.scaling.factor": 2.0}, True) for kind in ROPE["gguf"]),
        *(({"llama.rope.scaling.type": kind, "llama.rope.scaling.factor": 2.0}, False) for kind in ("yarn", "llama3")),
        ({"llama.expert_count": 8}, False),
        ({"llama.attention.value_length": 16}, False),
        ({"llama.rope.dimension_count": 8}, False),
        ({"split.count": 2}, False),
    ],
    ids=repr,
)
def test_a_file_is_chosen_where_it_is_read(fields: dict[str, Any], serves: bool, tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", fields=WORDS | fields)
    assert (chosen(path), is_read(path)) == (serves, serves)


_STRETCHED = {
    **{"factor": 2.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
    "original_max_position_embeddings": 128,
}


@pytest.mark.parametrize(
    ("config", "serves"),
    [
        ({}, True),
        *(({"rope_scaling": {"rope_type": kind} | _STRETCHED}, True) for kind in ROPE["folder"]),
        *(({"rope_parameters": {"rope_type": kind} | _STRETCHED}, True) for kind in ROPE["folder"]),
        ({"rope_scaling": {"type": "yarn"} | _STRETCHED}, False),
        ({"rope_parameters": {"rope_type": "default"}, "rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, False),
        ({"architectures": ["Gemma3ForCausalLM"]}, False),
        ({"hidden_act": "gelu"}, False),
        ({"partial_rotary_factor": 0.5}, False),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, False),
        ({"quantization_config": {"quant_method": "gptq"}}, False),
        ({"use_sliding_window": True, "sliding_window": 64}, True),
        ({"use_sliding_window": True, "max_window_layers": 1}, False),
        ({"use_sliding_window": True, "layer_types": ["sliding_attention", "full_attention"]}, False),
    ],
    ids=repr,
)
def test_a_folder_is_chosen_where_it_is_read(config: dict[str, Any], serves: bool, tmp_path: Path) -> None:
    path = write_folder(tmp_path / "m", config=config)
    words = models.BPE(vocab={text: at for at, text in enumerate(TOKENS)}, merges=[])
    Tokenizer(words).save(str(path / "tokenizer.json"))
    assert (chosen(path), is_read(path)) == (serves, serves)


def test_a_folder_without_the_tokenizer_that_is_read_is_not_chosen(tmp_path: Path) -> None:
    path = write_folder(tmp_path / "m")
    assert not chosen(path) and not is_read(path)
