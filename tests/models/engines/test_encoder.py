"""The encoder: the numbers of BERT, files at fault named, a cache that mends itself."""

import json
import multiprocessing
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer

from server.models.engines.encoders.encoder import Encoder
from server.models.engines.encoders.rows import next_batch
from tests.models.engines.driving import FOLDER
from tests.models.engines.reference import Reference

_TEXTS = [
    "",
    "Short.",
    "Wie schön! 日本語 😀 naïve café",
    "def f(x): return x**2  # code is text too",
    "The library opens at nine on weekdays and closes at six, except in August, when it opens at ten.",
    "Embeddings of long passages should be right as well. " * 12,
]
_WIDTH, _LAYERS, _VOCABULARY = 32, 2, 30522


def _cosines(ours: NDArray[np.float32], theirs: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray((ours * theirs).sum(axis=1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1))


@pytest.fixture(scope="module")
def truth() -> NDArray[np.float64]:
    reference = Reference(FOLDER)
    tokenizer = Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return np.stack([reference.embed(tokenizer.encode(text).ids) for text in _TEXTS])


@pytest.mark.parametrize(("precision", "least"), [("f32", 0.99999), ("bf16", 0.9999)])
def test_vectors_are_those_of_bert(
    precision: Literal["f32", "bf16"], least: float, truth: NDArray[np.float64], cache: Path
) -> None:
    try:
        encoder = Encoder(FOLDER, cache, precision, None)
    except ValueError as refused:
        assert "does not compute in bf16" in str(refused)
        return
    batch = encoder.encode(encoder.ids(_TEXTS))
    single = np.concatenate([encoder.encode(encoder.ids([text])) for text in _TEXTS])
    assert batch.shape == (len(_TEXTS), 384)
    assert np.linalg.norm(batch, axis=1) == pytest.approx(np.ones(len(_TEXTS)), abs=1e-3)
    assert _cosines(batch, truth).min() >= least
    assert _cosines(single, truth).min() >= least
    if precision == "f32":
        assert np.abs(batch - single).max() < 1e-5


def test_vectors_are_the_callers_own(cache: Path) -> None:
    encoder = Encoder(FOLDER, cache, "auto", 1)
    first = encoder.encode(encoder.ids(["one"]))
    kept = first.copy()
    encoder.encode(encoder.ids(["another"]))
    assert (first == kept).all()


def test_auto_takes_what_the_processor_computes_in(cache: Path) -> None:
    assert Encoder(FOLDER, cache, "auto", None).precision in ("f32", "bf16")


def test_nothing_is_cut_and_the_special_tokens_frame_every_text(cache: Path) -> None:
    encoder = Encoder(FOLDER, cache, "auto", None)
    [ids] = encoder.ids(["word " * 700])
    assert len(ids) == 702
    assert encoder.framed(ids[1:-1]) == ids
    assert encoder.count("word " * 700) == 700


@pytest.mark.parametrize(
    ("lengths", "count"), [([], 0), ([5], 1), ([9999], 1), ([100, 100, 9999], 2), ([1000, 1500], 1), ([10] * 1000, 153)]
)
def test_a_batch_is_bounded_by_its_padded_tokens(lengths: list[int], count: int) -> None:
    assert next_batch(lengths) == count


# ---- a small model of our own, to spoil -----------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A model folder with two narrow layers of random weights, and the real tokenizer."""
    folder = tmp_path / "small"
    folder.mkdir()
    shutil.copy(FOLDER / "tokenizer.json", folder)
    config = json.loads((FOLDER / "config.json").read_text(encoding="utf-8"))
    config |= {"num_hidden_layers": _LAYERS, "hidden_size": _WIDTH, "intermediate_size": 64, "num_attention_heads": 4}
    config["max_position_embeddings"] = 48
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file(_random_weights(np.random.default_rng(7)), folder / "model.safetensors")
    return folder


def _random_weights(random: np.random.Generator) -> dict[str, NDArray[np.float32]]:
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (_VOCABULARY, _WIDTH),
        "embeddings.position_embeddings.weight": (48, _WIDTH),
        "embeddings.token_type_embeddings.weight": (2, _WIDTH),
        "embeddings.LayerNorm.weight": (_WIDTH,),
        "embeddings.LayerNorm.bias": (_WIDTH,),
    }
    for layer in range(_LAYERS):
        name = f"encoder.layer.{layer}"
        linear = dict.fromkeys(("attention.self.query", "attention.self.key", "attention.self.value"), (_WIDTH, _WIDTH))
        linear |= {"attention.output.dense": (_WIDTH, _WIDTH), "intermediate.dense": (64, _WIDTH)}
        for part, shape in (linear | {"output.dense": (_WIDTH, 64)}).items():
            shapes |= {f"{name}.{part}.weight": shape, f"{name}.{part}.bias": shape[:1]}
        for part in ("attention.output.LayerNorm", "output.LayerNorm"):
            shapes |= {f"{name}.{part}.weight": (_WIDTH,), f"{name}.{part}.bias": (_WIDTH,)}
    return {name: random.normal(0, 0.5, shape).astype(np.float32) for name, shape in shapes.items()}


def _edit_config(folder: Path, **changes: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | changes), encoding="utf-8")


def _edit_weights(folder: Path, edit: Callable[[dict[str, NDArray[Any]]], None]) -> None:
    file = folder / "model.safetensors"
    tensors = load_file(file)
    edit(tensors)
    save_file(tensors, file)


def _pool(folder: Path, **modes: bool) -> None:
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(modes), encoding="utf-8")


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_another_shape_and_either_pooling_are_served(pooling: str, small: Path, tmp_path: Path) -> None:
    _pool(small, pooling_mode_cls_token=pooling == "cls", pooling_mode_mean_tokens=pooling == "mean")
    encoder = Encoder(small, tmp_path / "cache", "f32", None)
    rows = encoder.ids(["one", "three words here"])
    expected = np.stack([Reference(small).embed(row, pooling) for row in rows])
    assert _cosines(encoder.encode(rows), expected).min() >= 0.99999
    assert encoder.window == 48


def test_half_precision_weights_are_served(small: Path, tmp_path: Path) -> None:
    def halve(tensors: dict[str, NDArray[Any]]) -> None:
        tensors |= {f"bert.{name}": tensors.pop(name).astype(np.float16) for name in list(tensors)}

    whole = Encoder(small, tmp_path / "cache", "f32", None)
    rows = whole.ids(["three words here"])
    expected = whole.encode(rows)
    _edit_weights(small, halve)
    halved = Encoder(small, tmp_path / "cache", "f32", None).encode(rows)
    assert _cosines(halved, expected.astype(np.float64)).min() >= 0.9999


def _as_bfloat16(tensors: dict[str, NDArray[Any]]) -> bytes:
    """A safetensors file of them: the upper halves of float32."""
    header: dict[str, Any] = {}
    data = b""
    for name, each in tensors.items():
        half = (each.view(np.uint32) >> 16).astype("<u2").tobytes()
        header[name] = {"dtype": "BF16", "shape": each.shape, "data_offsets": (len(data), len(data) + len(half))}
        data += half
    told = json.dumps(header).encode()
    return len(told).to_bytes(8, "little") + told + data


def test_bfloat16_weights_are_served(small: Path, tmp_path: Path) -> None:
    file = small / "model.safetensors"
    # Numbers that bfloat16 holds exactly, so that both files say the same.
    cut = {name: (each.view(np.uint32) & 0xFFFF0000).view(np.float32) for name, each in load_file(file).items()}
    save_file(cut, file)
    whole = Encoder(small, tmp_path / "cache", "f32", None)
    rows = whole.ids(["three words here"])
    expected = whole.encode(rows)
    file.write_bytes(_as_bfloat16(cut))
    assert np.abs(Encoder(small, tmp_path / "cache", "f32", None).encode(rows) - expected).max() < 1e-6


_SPOILED: dict[str, tuple[Callable[[Path], object], str]] = {
    "no config": (lambda at: (at / "config.json").unlink(), r"config\.json"),
    "broken config": (lambda at: (at / "config.json").write_text("{"), r"config\.json: is not JSON"),
    "a list as config": (lambda at: (at / "config.json").write_text("[]"), r"config\.json: should hold a JSON object"),
    "another architecture": (
        lambda at: _edit_config(at, model_type="llama"),
        r"config\.json: model_type is 'llama'; this engine serves bert",
    ),
    "another activation": (lambda at: _edit_config(at, hidden_act="relu"), r"config\.json: hidden_act is 'relu'"),
    "no size": (lambda at: _edit_config(at, hidden_size=None), r"config\.json: a size is not a number"),
    "heads that do not fit": (lambda at: _edit_config(at, num_attention_heads=5), r"config\.json: 5 attention heads"),
    "another pooling": (lambda at: _pool(at, pooling_mode_max_tokens=True), r"1_Pooling/config\.json: says .*max"),
    "no weights": (lambda at: (at / "model.safetensors").unlink(), r"model\.safetensors"),
    "empty weights": (lambda at: (at / "model.safetensors").write_bytes(b""), r"model\.safetensors: cannot be read"),
    "cut weights": (
        lambda at: (at / "model.safetensors").write_bytes((at / "model.safetensors").read_bytes()[:100_000]),
        r"model\.safetensors: cannot be read",
    ),
    "a missing tensor": (
        lambda at: _edit_weights(at, lambda tensors: tensors.pop("encoder.layer.1.output.dense.bias")),
        r"model\.safetensors: has no tensor encoder\.layer\.1\.output\.dense\.bias",
    ),
    "a tensor of another shape": (
        lambda at: _edit_config(at, intermediate_size=65),
        r"model\.safetensors: encoder\.layer\.0\.intermediate\.dense\.weight is \[64, 32\], .* \[65, 32\]",
    ),
    "a table smaller than the vocabulary": (
        lambda at: _edit_config(at, vocab_size=20000),
        r"tokenizer\.json: has 30522 tokens, the weights have 20000",
    ),
    "integers as weights": (
        lambda at: _edit_weights(
            at, lambda all_: all_.update({name: each.astype(np.int8) for name, each in all_.items()})
        ),
        r"model\.safetensors: embeddings\.word_embeddings\.weight is I8; BF16, F16, F32 and F64 are read",
    ),
    "no tokenizer": (lambda at: (at / "tokenizer.json").unlink(), r"tokenizer\.json: not a tokenizer"),
    "broken tokenizer": (lambda at: (at / "tokenizer.json").write_text("{}"), r"tokenizer\.json: not a tokenizer"),
}


@pytest.mark.parametrize(("spoil", "says"), _SPOILED.values(), ids=_SPOILED.keys())
def test_a_fault_of_the_model_folder_names_the_file(
    spoil: Callable[[Path], object], says: str, small: Path, tmp_path: Path
) -> None:
    spoil(small)
    with pytest.raises((ValueError, OSError), match=says) as fault:
        Encoder(small, tmp_path / "cache", "auto", None)
    assert str(small) in str(fault.value)


def _zeroed(file: Path) -> None:
    file.write_bytes(bytes(file.stat().st_size))


@pytest.mark.parametrize("name", ["model.xml", "model.bin", "sums", "*.blob"])
@pytest.mark.parametrize(
    "spoil",
    [Path.unlink, _zeroed, lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])],
    ids=["gone", "zeroed", "cut"],
)
def test_a_spoiled_cache_is_made_again(name: str, spoil: Callable[[Path], object], small: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    encoder = Encoder(small, cache, "f32", None)
    rows = encoder.ids(["some words"])
    before = encoder.encode(rows)
    del encoder
    for file in list(cache.rglob(name)):
        spoil(file)
    assert (Encoder(small, cache, "f32", None).encode(rows) == before).all()


def test_other_weights_do_not_meet_the_old_cache(small: Path, tmp_path: Path) -> None:
    encoder = Encoder(small, tmp_path / "cache", "f32", None)
    rows = encoder.ids(["some words"])
    before = encoder.encode(rows)
    _edit_weights(small, lambda tensors: tensors["embeddings.LayerNorm.weight"].__imul__(-2))
    assert not np.allclose(Encoder(small, tmp_path / "cache", "f32", None).encode(rows), before)


def _first_value(folder: Path, cache: Path, results: Any) -> None:
    encoder = Encoder(folder, cache, "f32", 1)
    results.put(float(encoder.encode(encoder.ids(["some words"]))[0, 0]))


def test_processes_that_start_together_share_one_cache(small: Path, tmp_path: Path) -> None:
    spawning = multiprocessing.get_context("spawn")
    results = spawning.Queue()
    workers = [spawning.Process(target=_first_value, args=(small, tmp_path / "cache", results)) for _ in range(3)]
    for worker in workers:
        worker.start()
    values = [results.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join(timeout=60)
    assert len(set(values)) == 1
    assert len(list((tmp_path / "cache" / "encoders").iterdir())) == 1
