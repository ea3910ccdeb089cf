"""AWQ to GPTQ: the same weights, bit by bit, written once and never by halves."""

import json
from pathlib import Path
from typing import Any

import pytest

from server.models.engines.exllama.folder import readable, repacked
from server.models.header import WeightsError, config
from tests.making.oracle import needs_torch

pytestmark = needs_torch

ROWS, COLUMNS, GROUP = 256, 64, 64
_AWQ = (0, 2, 4, 6, 1, 3, 5, 7)


def _packed(values: Any, order: tuple[int, ...]) -> Any:
    """0 to 15 [rows, columns] into int32 [rows, columns / 8], written apart from the code under test."""
    import torch

    made = torch.zeros(values.shape[0], values.shape[1] // 8, dtype=torch.int64)
    for place, column in enumerate(order):
        made += values[:, column::8].to(torch.int64) * 16**place
    return (made - (made >= 2**31) * 2**32).to(torch.int32)


def _unpacked(packed: Any, order: tuple[int, ...]) -> Any:
    import torch

    whole = packed.to(torch.int64) % 2**32
    values = torch.zeros(packed.shape[0], packed.shape[1] * 8, dtype=torch.int64)
    for place, column in enumerate(order):
        values[:, column::8] = whole // 16**place % 16
    return values


def _model(folder: Path, *, least_zero: int = 1) -> Any:
    """An AWQ folder of one matrix; returns its exact weights, f32 [rows, columns]."""
    import torch
    from safetensors.torch import save_file

    drawn = torch.Generator().manual_seed(0)
    values = torch.randint(0, 16, (ROWS, COLUMNS), generator=drawn)
    zeros = torch.randint(least_zero, 16, (ROWS // GROUP, COLUMNS), generator=drawn)
    zeros[0, 0], zeros[0, 1] = least_zero, 15
    scales = torch.rand(ROWS // GROUP, COLUMNS, generator=drawn).half() + 0.5
    folder.mkdir()
    name = "model.layers.0.mlp.up_proj"
    tensors = {
        f"{name}.qweight": _packed(values, _AWQ),
        f"{name}.qzeros": _packed(zeros, _AWQ),
        f"{name}.scales": scales,
        "model.norm.weight": torch.ones(8, dtype=torch.bfloat16),
    }
    save_file(tensors, folder / "model.safetensors")
    told = {
        "architectures": ["LlamaForCausalLM"],
        "quantization_config": {"quant_method": "awq", "bits": 4, "group_size": GROUP, "version": "gemm"},
    }
    (folder / "config.json").write_text(json.dumps(told), encoding="utf-8")
    (folder / "tokenizer.json").write_text("{}", encoding="utf-8")
    return (values - zeros.repeat_interleave(GROUP, 0)).float() * scales.float().repeat_interleave(GROUP, 0)


def test_the_weights_are_the_same_bit_by_bit(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    exact = _model(tmp_path / "awq")
    place = repacked(tmp_path / "awq", tmp_path / "cache", lambda _: None)
    tensors = load_file(place / "model.safetensors")
    name = "model.layers.0.mlp.up_proj"
    order = tuple(range(8))
    values = _unpacked(tensors[f"{name}.qweight"].T.contiguous(), order).T
    zeros = _unpacked(tensors[f"{name}.qzeros"], order) + 1
    scales = tensors[f"{name}.scales"].float().repeat_interleave(GROUP, 0)
    assert torch.equal((values - zeros.repeat_interleave(GROUP, 0)).float() * scales, exact)
    assert tensors["model.norm.weight"].dtype == torch.bfloat16
    said = config(place)["quantization_config"]
    assert (said["quant_method"], said["bits"], said["group_size"]) == ("gptq", 4, GROUP)


def test_it_is_written_once_and_anew_where_the_files_changed(tmp_path: Path) -> None:
    _model(tmp_path / "awq")
    said: list[str] = []
    first = repacked(tmp_path / "awq", tmp_path / "cache", said.append)
    assert repacked(tmp_path / "awq", tmp_path / "cache", said.append) == first
    assert len(said) == 1
    (tmp_path / "awq" / "config.json").touch()
    told = config(tmp_path / "awq") | {"bos_token_id": 1}
    (tmp_path / "awq" / "config.json").write_text(json.dumps(told), encoding="utf-8")
    assert repacked(tmp_path / "awq", tmp_path / "cache", said.append) != first
    with readable("exllamav2", tmp_path / "awq", tmp_path / "cache", said.append) as folder:
        assert config(folder)["quantization_config"]["quant_method"] == "gptq"


def test_a_zero_point_of_zero_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    _model(tmp_path / "awq", least_zero=0)
    with pytest.raises(WeightsError, match=r"up_proj\.qzeros has a zero point of 0"):
        repacked(tmp_path / "awq", tmp_path / "cache", lambda _: None)
    assert list((tmp_path / "cache" / "gptq-of-awq").iterdir()) == []
