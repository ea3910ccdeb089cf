"""Every family of encoders and every file of sentence-transformers: the reference's numbers, or a refusal by name."""

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tokenizers import Tokenizer

from server.models.engines.encoders.encoder import Encoder
from server.models.made.encoder_folder import FAMILIES, write_encoder
from tests.models.engines.reference import Reference

_WORDS = [
    "",
    "one",
    "To change the port, set server.listen in the recipe.",
    "Wie schön! 😀",
    "The reader quotes it. " * 8,
]
_POOLINGS = ("mean", "cls", "lasttoken")


def _cosines(ours: NDArray[np.float32], theirs: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray((ours * theirs).sum(axis=1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    base = tmp_path_factory.mktemp("families")
    return {
        (family, pooling): write_encoder(base / f"{family}-{pooling}", family, pooling=pooling, window=80)
        for family in FAMILIES
        for pooling in _POOLINGS
    }


@pytest.mark.parametrize("pooling", _POOLINGS)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_and_pooling_has_the_vectors_of_the_reference(
    family: str, pooling: str, made: dict[tuple[str, str], Path], cache: Path
) -> None:
    folder = made[family, pooling]
    encoder = Encoder(folder, cache, "f32", None)
    rows = encoder.ids(_WORDS)
    expected = np.stack([Reference(folder).embed(row, pooling) for row in rows])
    assert encoder.window == 80
    assert _cosines(encoder.encode(rows), expected).min() >= 0.99999
    assert _cosines(encoder.encode(rows[::-1]), expected).min() < 0.99


@pytest.mark.parametrize("family", FAMILIES)
def test_the_longest_input_of_every_family_is_computed_to_the_last_position(
    family: str, made: dict[tuple[str, str], Path], cache: Path
) -> None:
    folder = made[family, "mean"]
    encoder = Encoder(folder, cache, "f32", None)
    row = encoder.framed([5 + n % 90 for n in range(encoder.window - 2)])
    assert len(row) == encoder.window
    assert _cosines(encoder.encode([row]), Reference(folder).embed(row)[None]).min() >= 0.99999


@pytest.mark.parametrize("pooling", _POOLINGS)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_and_pooling_has_the_vectors_of_transformers(
    family: str, pooling: str, made: dict[tuple[str, str], Path], cache: Path
) -> None:
    torch = pytest.importorskip("torch", reason="torch and transformers are needed as the oracle")
    transformers = pytest.importorskip("transformers", reason="torch and transformers are needed as the oracle")
    folder = made[family, pooling]
    oracle = transformers.AutoModel.from_pretrained(str(folder)).eval()
    encoder = Encoder(folder, cache, "f32", None)
    rows = encoder.ids(_WORDS)
    with torch.no_grad():
        states = [oracle(input_ids=torch.tensor([row])).last_hidden_state[0].numpy() for row in rows]
    pooled = {
        "mean": lambda state: state.mean(axis=0),
        "cls": lambda state: state[0],
        "lasttoken": lambda state: state[-1],
    }
    expected = np.stack([pooled[pooling](state) for state in states]).astype(np.float64)
    assert _cosines(encoder.encode(rows), expected).min() >= 0.9999


@pytest.mark.parametrize("family", FAMILIES)
def test_special_tokens_are_those_of_the_family(family: str, made: dict[tuple[str, str], Path], cache: Path) -> None:
    encoder = Encoder(made[family, "mean"], cache, "f32", None)
    [ids] = encoder.ids(["some words"])
    [bare] = encoder.bare(["some words"])
    assert encoder.framed(bare) == ids
    pair = Tokenizer.from_file(str(encoder.tokenizer_file)).encode("some words", "others")
    [other] = encoder.bare(["others"])
    assert encoder.paired(bare, other) == pair.ids
    assert len(pair.ids) == len(bare) + len(other) + encoder.frame


def _write(file: Path, told: object) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(told), encoding="utf-8")


@pytest.mark.parametrize("mode", ["mean", "cls", "lasttoken"])
def test_a_pooling_in_one_word_is_read_too(mode: str, tmp_path: Path) -> None:
    folder = write_encoder(tmp_path / "model", "bert")
    _write(folder / "1_Pooling" / "config.json", {"pooling_mode": mode, "embedding_dimension": 32})
    encoder = Encoder(folder, tmp_path / "cache", "f32", None)
    rows = encoder.ids(["three words here"])
    expected = np.stack([Reference(folder).embed(row, mode) for row in rows])
    assert _cosines(encoder.encode(rows), expected).min() >= 0.99999


def test_the_pooling_is_where_the_modules_say(tmp_path: Path) -> None:
    folder = write_encoder(tmp_path / "model", "roberta", pooling="cls")
    modules = (folder / "modules.json").read_text(encoding="utf-8")
    (folder / "modules.json").write_text(modules.replace("1_Pooling", "pooled"), encoding="utf-8")
    (folder / "1_Pooling").rename(folder / "pooled")
    assert Encoder(folder, tmp_path / "cache", "f32", None).shape.pooling == "cls"


def test_the_advised_length_is_told_and_does_not_cut(tmp_path: Path) -> None:
    folder = write_encoder(tmp_path / "model", "bert", window=64)
    _write(folder / "sentence_bert_config.json", {"max_seq_length": 24})
    encoder = Encoder(folder, tmp_path / "cache", "f32", None)
    assert (encoder.advised, encoder.window) == (24, 64)


_MODULE = {"type": "sentence_transformers.models.Transformer", "path": ""}
_REFUSED: dict[str, tuple[str, object, str]] = {
    "a dense layer": (
        "modules.json",
        [_MODULE, {"type": "sentence_transformers.models.Dense", "path": "2_Dense"}],
        r"modules\.json: has a module 'sentence_transformers\.models\.Dense'; this engine serves Transformer",
    ),
    "no pooling": ("modules.json", [_MODULE], r"modules\.json: has no module Pooling"),
    "a pooling elsewhere": (
        "modules.json",
        [_MODULE, {"type": "x.Pooling", "path": "../1_Pooling"}],
        r"modules\.json: should name one folder for Pooling",
    ),
    "weights elsewhere": ("modules.json", [_MODULE | {"path": "0_T"}], r"modules\.json: the weights are in .* '0_T'"),
    "modules of no list": ("modules.json", {}, r"modules\.json: should hold a JSON list"),
    "two poolings": (
        "1_Pooling/config.json",
        {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True},
        r"1_Pooling/config\.json: says \['pooling_mode_cls_token', 'pooling_mode_mean_tokens'\]",
    ),
    "an unknown pooling": (
        "1_Pooling/config.json",
        {"pooling_mode": "weightedmean"},
        r"1_Pooling/config\.json: pooling_mode is 'weightedmean'; this engine serves mean, cls or lasttoken",
    ),
    "a length of no number": ("sentence_bert_config.json", {"max_seq_length": "all"}, r"max_seq_length is 'all'"),
}


@pytest.mark.parametrize(("name", "told", "says"), _REFUSED.values(), ids=_REFUSED.keys())
def test_what_sentence_transformers_would_do_otherwise_is_refused(
    name: str, told: object, says: str, tmp_path: Path
) -> None:
    folder = write_encoder(tmp_path / "model", "bert")
    _write(folder / name, told)
    with pytest.raises(ValueError, match=says) as fault:
        Encoder(folder, tmp_path / "cache", "f32", None)
    assert str(folder) in str(fault.value)


def test_a_tokenizer_that_adds_no_special_tokens_is_refused(tmp_path: Path) -> None:
    folder = write_encoder(tmp_path / "model", "roberta")
    told = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    _write(folder / "tokenizer.json", told | {"post_processor": None})
    with pytest.raises(ValueError, match=r"tokenizer\.json: encodes an empty text as \[\], .* post_processor"):
        Encoder(folder, tmp_path / "cache", "f32", None)


def test_positions_that_leave_no_room_are_refused(tmp_path: Path) -> None:
    folder = write_encoder(tmp_path / "model", "roberta", window=2)
    with pytest.raises(ValueError, match=r"config\.json: max_position_embeddings of 4 leaves no room"):
        Encoder(folder, tmp_path / "cache", "f32", None)
