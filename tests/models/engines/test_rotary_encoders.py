"""Encoders with rotary positions: the vectors of transformers on random weights, in files as they are published."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer, processors

from config.model import LocalModel
from server.models.engines.encoders.config import LONGEST, Shape
from server.models.engines.encoders.encoder import Encoder
from server.models.fit import estimate
from server.models.made.encoder_folder import write_encoder

torch = pytest.importorskip("torch", reason="torch and transformers are needed as the oracle")
transformers = pytest.importorskip("transformers", reason="torch and transformers are needed as the oracle")

_TEXTS = ["", "one", "To change the port, set server.listen.", "Wie schön! 😀", "The reader quotes it. " * 8]
_SIZES = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 48}
_WINDOW = 96


def _config(family: str, vocabulary: int, labels: int) -> Any:
    sizes = _SIZES | {"vocab_size": vocabulary, "max_position_embeddings": _WINDOW, "pad_token_id": 0}
    sizes |= {"num_labels": labels or 2}
    if family == "modernbert":
        # Local layers see four tokens to each side: many texts here are longer.
        return transformers.ModernBertConfig(**sizes, local_attention=8, classifier_pooling="mean" if labels else "cls")
    if family == "nomic_bert":
        return transformers.NomicBertConfig(**sizes)
    return transformers.Qwen3Config(**sizes, head_dim=16, num_key_value_heads=2, tie_word_embeddings=True)


def _oracle(family: str, vocabulary: int, labels: int = 0) -> Any:
    """A small model of random weights, wide enough that texts get vectors of their own."""
    kind = transformers.AutoModelForSequenceClassification if labels else transformers.AutoModel
    model = kind.from_config(_config(family, vocabulary, labels)).eval()
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(7)
        for name, weight in model.named_parameters():
            weight.normal_(1.0 if "norm" in name.lower() and name.endswith("weight") else 0.0, 0.2)
    return model


def _folder(folder: Path, family: str, pooling: str, labels: int = 0) -> tuple[Path, Any]:
    """The model as a folder of transformers and sentence-transformers, and the model itself."""
    write_encoder(folder, "bert", pooling=pooling, window=_WINDOW, labels=labels)
    if family == "qwen3":
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        end = tokenizer.token_to_id("[SEP]")
        tokenizer.post_processor = processors.TemplateProcessing(single="$A [SEP]", special_tokens=[("[SEP]", end)])
        tokenizer.save(str(folder / "tokenizer.json"))
    model = _oracle(family, Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab_size(), labels)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder)
    return folder, model


def _pooled(model: Any, row: list[int], pooling: str) -> NDArray[np.float64]:
    with torch.no_grad():
        state = model(input_ids=torch.tensor([row])).last_hidden_state[0].double().numpy()
    return np.asarray({"mean": state.mean(axis=0), "cls": state[0], "lasttoken": state[-1]}[pooling])


def _cosines(ours: NDArray[np.float32], theirs: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray((ours * theirs).sum(axis=1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1))


_CASES = [("modernbert", "cls"), ("modernbert", "mean"), ("nomic_bert", "mean"), ("qwen3", "lasttoken")]


@pytest.mark.parametrize(("family", "pooling"), _CASES)
def test_vectors_are_those_of_transformers(family: str, pooling: str, tmp_path: Path, cache: Path) -> None:
    folder, model = _folder(tmp_path / family, family, pooling)
    encoder = Encoder(folder, cache, "f32", None)
    assert encoder.window == _WINDOW
    rows = [*encoder.ids(_TEXTS), encoder.framed([5 + n % 90 for n in range(_WINDOW - 2)])]
    expected = np.stack([_pooled(model, row, pooling) for row in rows])
    batch = encoder.encode(rows)
    assert _cosines(batch, expected).min() >= 0.99999
    assert _cosines(batch[::-1], expected).min() < 0.99
    single = np.concatenate([encoder.encode([row]) for row in rows])
    assert np.abs(batch - single).max() < 1e-5


def test_bf16_keeps_late_positions_apart(tmp_path: Path, cache: Path) -> None:
    folder, model = _folder(tmp_path / "modern", "modernbert", "mean")
    try:
        encoder = Encoder(folder, cache, "bf16", None)
    except ValueError as refused:
        assert "does not compute in bf16" in str(refused)
        return
    rows = [encoder.framed([5 + n * n % 90 for n in range(_WINDOW - 2)])]
    assert _cosines(encoder.encode(rows), np.stack([_pooled(model, row, "mean") for row in rows])).min() >= 0.999


def test_a_reranker_of_modernbert_scores_as_transformers_does(tmp_path: Path, cache: Path) -> None:
    folder, model = _folder(tmp_path / "modern", "modernbert", "mean", labels=1)
    encoder = Encoder(folder, cache, "f32", None, "rerank")
    query, *others = encoder.bare(["Which port?", *_TEXTS[1:]])
    pairs = [encoder.paired(query, other) for other in others]
    with torch.no_grad():
        expected = [torch.sigmoid(model(input_ids=torch.tensor([pair])).logits[0, 0]).item() for pair in pairs]
    assert encoder.score(pairs, [encoder.second(query)] * len(pairs)) == pytest.approx(expected, abs=1e-5)
    assert max(expected) - min(expected) > 0.01


def _renamed(told: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    return {names.get(key, key): value for key, value in told.items()}


def test_the_published_configuration_of_nomicbert_is_read(tmp_path: Path, cache: Path) -> None:
    folder, model = _folder(tmp_path / "nomic", "nomic_bert", "mean")
    file = folder / "config.json"
    told = json.loads(file.read_text(encoding="utf-8"))
    for key in ("hidden_act", "rope_parameters", "head_dim"):
        told.pop(key, None)
    told = _renamed(
        told,
        {
            **{"hidden_size": "n_embd", "num_attention_heads": "n_head", "num_hidden_layers": "n_layer"},
            **{"intermediate_size": "n_inner", "layer_norm_eps": "layer_norm_epsilon"},
            "max_position_embeddings": "max_trained_positions",
        },
    )
    told |= {"activation_function": "swiglu", "rotary_emb_base": 1000, "rotary_emb_fraction": 1.0, "n_positions": 8192}
    told |= {"rotary_emb_interleaved": False, "rotary_scaling_factor": None, "qkv_proj_bias": False, "prenorm": False}
    file.write_text(json.dumps(told), encoding="utf-8")
    encoder = Encoder(folder, cache, "f32", None)
    rows = encoder.ids(_TEXTS)
    assert encoder.window == _WINDOW
    assert _cosines(encoder.encode(rows), np.stack([_pooled(model, row, "mean") for row in rows])).min() >= 0.99999
    file.write_text(json.dumps(told | {"activation_function": "gelu"}), encoding="utf-8")
    with pytest.raises(ValueError, match=r"config\.json: activation_function is 'gelu'; this engine serves swiglu"):
        Encoder(folder, cache, "f32", None)


def test_weights_in_several_files_are_one_model(tmp_path: Path, cache: Path) -> None:
    folder, model = _folder(tmp_path / "whole", "qwen3", "lasttoken")
    halved = shutil.copytree(folder, tmp_path / "halved")
    (halved / "model.safetensors").unlink()
    model.to(torch.bfloat16).save_pretrained(halved, max_shard_size="60KB")
    assert len(list(halved.glob("*.safetensors"))) > 1
    # In bfloat16, which is kept as it is; the numbers are those of the rounded weights.
    rounded = transformers.AutoModel.from_pretrained(halved, dtype=torch.float32).eval()
    encoder = Encoder(halved, cache, "f32", None)
    rows = encoder.ids(_TEXTS)
    expected = np.stack([_pooled(rounded, row, "lasttoken") for row in rows])
    assert _cosines(encoder.encode(rows), expected).min() >= 0.99999
    assert encoder.weights_bytes == sum(file.stat().st_size for file in halved.glob("*.safetensors"))
    sorted(halved.glob("*.safetensors"))[-1].unlink()
    with pytest.raises(ValueError, match=r"halved: has no model-0000\d-of-0000\d\.safetensors, which model\.safetens"):
        Encoder(halved, cache, "f32", None)


def test_a_name_before_all_tensors_is_passed_over(tmp_path: Path, cache: Path) -> None:
    folder, model = _folder(tmp_path / "modern", "modernbert", "cls")
    weights = load_file(folder / "model.safetensors")
    save_file({f"model.{name}": each for name, each in weights.items()}, folder / "model.safetensors")
    encoder = Encoder(folder, cache, "f32", None)
    rows = encoder.ids(_TEXTS)
    assert _cosines(encoder.encode(rows), np.stack([_pooled(model, row, "cls") for row in rows])).min() >= 0.99999


_REFUSED = {
    "a stretched rope": ("qwen3", {"rope_parameters": {"rope_type": "yarn", "factor": 4.0}}, "of type yarn is not com"),
    "another activation": ("modernbert", {"hidden_activation": "relu"}, "hidden_activation is 'relu'"),
    "biases": ("modernbert", {"attention_bias": True}, "attention_bias is True; this engine serves False"),
    "layers that are not told": ("modernbert", {"layer_types": ["full_attention"]}, "layer_types names 1 layers of 4"),
    "experts": ("nomic_bert", {"num_experts": 8}, "num_experts is 8"),
}


@pytest.mark.parametrize("case", _REFUSED)
def test_what_would_change_the_numbers_is_refused_by_name(case: str, tmp_path: Path, cache: Path) -> None:
    family, change, said = _REFUSED[case]
    folder = write_encoder(tmp_path / "model", "bert", window=_WINDOW)
    told = json.loads(_config(family, 600, 0).to_json_string(use_diff=False)) | change
    (folder / "config.json").write_text(json.dumps(told), encoding="utf-8")
    with pytest.raises(ValueError, match=f"config\\.json: .*{said}"):
        Encoder(folder, cache, "f32", None)


def test_the_longest_input_is_bounded_and_its_masks_are_in_the_estimate(tmp_path: Path) -> None:
    sizes = {}
    for family in ("modernbert", "nomic_bert", "qwen3"):
        folder = write_encoder(tmp_path / family, "bert")
        told = json.loads(_config(family, 600, 0).to_json_string(use_diff=False)) | {"max_position_embeddings": 40960}
        (folder / "config.json").write_text(json.dumps(told), encoding="utf-8")
        assert Shape.read(folder).window == LONGEST
        spec = LocalModel.model_validate({"engine": "auto", "source": str(folder), "task": "embed"}, context={})
        sizes[family] = estimate("openvino", spec, folder).rest
    assert sizes["modernbert"] - sizes["nomic_bert"] == 12 * LONGEST**2
    assert sizes["qwen3"] - sizes["nomic_bert"] == 8 * LONGEST**2
