"""Hugging Face folders as weights: the same as the GGUF file of the same model, and what is broken is refused."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from server.models.engines.paged.folder import Folder
from server.models.engines.paged.gguf_file import GgufFile
from server.models.engines.paged.weights import Float, Int8, quantised, tensors
from server.models.header import INDEX, WeightsError, listed
from server.models.made.shapes import FAMILIES
from tests.making import made
from tests.models.engines.paged.test_gguf_file import plain
from tests.models.engines.paged.writing import write_folder


@pytest.mark.parametrize(("family", "scaled"), [*((family, False) for family in FAMILIES), ("llama", True)])
def test_a_folder_holds_what_the_gguf_file_of_the_model_holds(family: str, scaled: bool) -> None:
    folder = Folder(made("random", family=family, rope_scaling=scaled, format="safetensors"), keep_floats=True)
    file = GgufFile(made("random", family=family, rope_scaling=scaled), keep_floats=True)
    np.testing.assert_allclose(folder.shape.frequencies, file.shape.frequencies, rtol=1e-5)
    for tensor in tensors(folder.shape):
        name, layer = tensor.name, tensor.layer
        assert folder.has(name, layer) == file.has(name, layer)
        if not folder.has(name, layer):
            continue
        if len(tensor.size) == 1:
            np.testing.assert_array_equal(folder.vector(name, layer), file.vector(name, layer))
        else:
            np.testing.assert_array_equal(plain(folder.matrix(name, layer)), plain(file.matrix(name, layer)))


def test_floats_become_int8_within_half_a_step() -> None:
    values = np.random.default_rng(0).normal(0, 1, (2500, 64)).astype(np.float32)
    values[7] = 0
    made_of = quantised(values)
    assert isinstance(made_of, Int8)
    steps = np.repeat(np.abs(values.reshape(2500, 2, 32)).max(-1), 32, 1) / 127
    assert (np.abs(plain(made_of) - values) <= 0.57 * steps).all()


def test_rows_without_whole_groups_stay_floats() -> None:
    assert isinstance(quantised(np.zeros((4, 40), np.float32)), Float)


_SCALING = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"architectures": ["GPT2LMHeadModel"]}, "architecture GPT2LMHeadModel"),
        ({"architectures": None}, "architecture None"),
        ({"hidden_size": None}, "hidden_size is missing"),
        ({"hidden_size": "64"}, "hidden_size should be a whole number, but is '64'"),
        ({"num_hidden_layers": -1}, "num_hidden_layers should be a whole number, but is -1"),
        ({"rms_norm_eps": 0}, "epsilon of its norms is 0"),
        ({"hidden_act": "gelu"}, "hidden_act gelu"),
        ({"quantization_config": {"quant_method": "awq"}}, "quantization_config"),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0}}, "rope scaling of type yarn"),
        ({"rope_scaling": _SCALING}, "original_max_position_embeddings is None"),
        ({"rope_scaling": 3}, "rope_scaling should be an object"),
        ({"rope_parameters": {"rope_theta": "much"}}, "rope_parameters.rope_theta"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor 0.5"),
        (
            {"use_sliding_window": True, "layer_types": ["full_attention", "sliding_attention"]},
            "layer_types: a sliding window in some layers only",
        ),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused_by_its_key(
    tmp_path: Path, config: dict[str, Any], named: str
) -> None:
    with pytest.raises(WeightsError, match=f"config.json: .*{named}"):
        Folder(write_folder(tmp_path / "m", config=config))


@pytest.mark.parametrize(
    ("tensors", "named"),
    [
        ({"blk.0.ffn_up": None}, "the tensor model.layers.0.mlp.up_proj.weight is missing"),
        ({"blk.0.attn_norm": np.zeros(3, np.float32)}, r"input_layernorm.weight is 3, but .* 64"),
        ({"token_embd": np.zeros((128, 64), np.int32)}, "embed_tokens.weight is of type I32; BF16, F16, F32 are read"),
    ],
)
def test_tensors_that_do_not_fit_are_refused_by_name(tmp_path: Path, tensors: dict[str, Any], named: str) -> None:
    with pytest.raises(WeightsError, match=named):
        Folder(write_folder(tmp_path / "m", tensors=tensors))


def _in_two(folder: Path) -> Path:
    """The same folder with its weights in two files; returns the second."""
    whole = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(whole)
    for name, part in (("a.safetensors", names[:4]), ("b.safetensors", names[4:])):
        save_file({each: whole[each] for each in part}, folder / name)
    places = {name: "a.safetensors" if name in names[:4] else "b.safetensors" for name in names}
    (folder / INDEX).write_text(json.dumps({"weight_map": places}), encoding="utf-8")
    return folder / "b.safetensors"


def test_weights_in_several_files_are_those_that_the_index_names(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "m")
    expected = Folder(folder).vector("norm")
    second = _in_two(folder)
    save_file({"model.norm.weight": np.zeros(64, np.float32)}, folder / "z.safetensors")
    np.testing.assert_array_equal(Folder(folder).vector("norm"), expected)
    second.unlink()
    with pytest.raises(WeightsError, match=r"m: has no b\.safetensors, which model\.safetensors\.index\.json names"):
        Folder(folder)


@pytest.mark.parametrize(
    "index", ["{", "[]", '{"weight_map": 3}', '{"weight_map": {"a": "../b"}}', '{"weight_map": {}}']
)
def test_an_index_that_tells_nothing_is_refused_by_its_file(index: str, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "m")
    _in_two(folder)
    (folder / INDEX).write_text(index, encoding="utf-8")
    with pytest.raises(WeightsError, match=r"model\.safetensors\.index\.json: "):
        Folder(folder)


def test_tensors_that_lie_in_the_same_bytes_are_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "m")
    file = folder / "model.safetensors"
    header, begin = listed(file)
    norms = ("model.layers.0.input_layernorm.weight", "model.norm.weight")
    header[norms[0]]["data_offsets"] = header[norms[1]]["data_offsets"]
    told, data = json.dumps(header).encode(), file.read_bytes()[begin:]
    file.write_bytes(len(told).to_bytes(8, "little") + told + data)
    with pytest.raises(WeightsError, match=r"model\.safetensors: corrupt: the tensors .* and .* lie in the same bytes"):
        Folder(folder)


def test_a_folder_without_weights_or_configuration_is_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "m")
    (folder / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"there is no \.safetensors file"):
        Folder(folder)
    (folder / "config.json").write_text("[" * 100_000, encoding="utf-8")
    with pytest.raises(WeightsError, match=r"config\.json"):
        Folder(folder)
    (folder / "config.json").unlink()
    with pytest.raises(WeightsError, match=r"config\.json"):
        Folder(folder)


def test_values_that_are_not_numbers_are_refused_with_the_tensor(tmp_path: Path) -> None:
    bad = np.full((96, 64), np.inf, np.float32)
    folder = Folder(write_folder(tmp_path / "m", tensors={"blk.0.ffn_gate": bad}))
    with pytest.raises(WeightsError, match=r"gate_proj.weight holds values that are not numbers"):
        folder.matrix("gate", 0)


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "m")
    file = folder / "model.safetensors"
    data = file.read_bytes()
    for length in [*range(0, 64), *range(64, len(data), 997), len(data) - 1]:
        file.write_bytes(data[:length])
        with pytest.raises(WeightsError, match=r"model\.safetensors"):
            Folder(folder)


def test_flipped_header_bytes_are_read_or_refused_but_nothing_else(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "m")
    file = folder / "model.safetensors"
    data = file.read_bytes()
    header = 8 + int.from_bytes(data[:8], "little")
    draw = random.Random(0)
    refused = 0
    for at in range(header):
        flipped = data[at] ^ draw.choice((0xFF, 0x80, 1 << draw.randrange(8)))
        file.write_bytes(data[:at] + bytes([flipped]) + data[at + 1 :])
        try:
            found = Folder(folder)
            for tensor in tensors(found.shape):
                if found.has(tensor.name, tensor.layer):
                    found._values(tensor.name, tensor.layer)
        except WeightsError:
            refused += 1
    assert refused > header // 2


def test_a_repeated_head_of_tied_weights_is_not_read_twice(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "m", config={"tie_word_embeddings": True})
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config["tie_word_embeddings"]
    assert not Folder(folder).has("head")
