"""What an encoder's folder declares: family, sizes, pooling, head. Reads JSON files; knows no weights and no runtime.

A setting that would change the numbers and is not computed here is refused by its name and file.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Task = Literal["embed", "rerank"]
Pooling = Literal["mean", "cls", "last"]


@dataclass(frozen=True)
class Family:
    """What tells one kind of encoder from another; `keys` are its own names for the sizes in config.json.

    `shifted`: position ids begin after pad_token_id. `tie` is how many separators stand between the texts of a pair.
    """

    name: str
    served: dict[str, Any]
    keys: dict[str, str]
    first: str
    last: str
    tie: int
    shifted: bool
    head: str


_KEYS = {
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "hidden": "hidden_size",
    "inner": "intermediate_size",
    "kinds": "type_vocab_size",
}
_SERVED = {"hidden_act": "gelu", "position_embedding_type": "absolute", "is_decoder": False}
_SHORT = {"layers": "n_layers", "heads": "n_heads", "hidden": "dim", "inner": "hidden_dim"}

FAMILIES = {
    each.name: each
    for each in (
        Family("bert", _SERVED, _KEYS, "[CLS]", "[SEP]", 1, False, "BertForSequenceClassification"),
        Family("roberta", _SERVED, _KEYS, "<s>", "</s>", 2, True, "RobertaForSequenceClassification"),
        Family("xlm-roberta", _SERVED, _KEYS, "<s>", "</s>", 2, True, "XLMRobertaForSequenceClassification"),
        Family(
            *("distilbert", {"activation": "gelu"}, _SHORT, "[CLS]", "[SEP]", 1, False),
            "DistilBertForSequenceClassification",
        ),
    )
}

_POOLED: dict[str, Pooling] = {"mean": "mean", "cls": "cls", "lasttoken": "last"}
_MODES: dict[str, Pooling] = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_lasttoken": "last",
}
_MODULES = ("Transformer", "Pooling", "Normalize")


@dataclass(frozen=True)
class Shape:
    """What config.json and the files of sentence-transformers say of the encoder.

    `positions` is how many rows its position table has, of which the first `skipped` are never used. `kinds` is 0 for
    a family without token types. `pooling` is None with a scoring head in its place.
    """

    family: str
    layers: int
    heads: int
    hidden: int
    epsilon: float
    inner: int
    positions: int
    skipped: int
    vocabulary: int
    kinds: int
    pooling: Pooling | None

    @property
    def window(self) -> int:
        """The longest input in tokens, special ones included."""
        return self.positions - self.skipped

    @property
    def weights(self) -> int:
        """How many numbers of the layers' matrices a token is multiplied with."""
        return self.layers * (4 * self.hidden**2 + 2 * self.hidden * self.inner)

    @property
    def task(self) -> Task:
        return "rerank" if self.pooling is None else "embed"

    @classmethod
    def read(cls, folder: Path, task: Task = "embed") -> "Shape":
        """Raises ValueError naming the file where it is not an encoder served here, OSError where it cannot be read."""
        file = folder / "config.json"
        told = _json(file)
        family = FAMILIES.get(str(told.get("model_type")))
        if family is None:
            raise ValueError(
                f"{file}: model_type is {told.get('model_type')!r}; this engine serves {_either(FAMILIES)}"
            )
        for key, served in family.served.items():
            if told.get(key, served) != served:
                raise ValueError(f"{file}: {key} is {told.get(key)!r}; this engine serves {served}")
        if task == "rerank":
            _check_head(file, told, family)
        pooling = _pooling(folder) if task == "embed" else None
        try:
            shape = cls(
                family=family.name,
                **{name: int(told[key]) for name, key in family.keys.items()},
                **({} if "kinds" in family.keys else {"kinds": 0}),
                # DistilBERT's classes fix it, and its config.json has no such key.
                epsilon=float(told["layer_norm_eps"] if family.name != "distilbert" else 1e-12),
                positions=int(told["max_position_embeddings"]),
                skipped=int(told["pad_token_id"]) + 1 if family.shifted else 0,
                vocabulary=int(told["vocab_size"]),
                pooling=pooling,
            )
        except KeyError as error:
            raise ValueError(f"{file}: has no {error}") from error
        except (TypeError, ValueError) as error:
            raise ValueError(f"{file}: a size is not a number: {error}") from error
        shape._check(file)
        return shape

    def _check(self, file: Path) -> None:
        if min(self.layers, self.heads) < 1 or self.hidden % self.heads:
            raise ValueError(f"{file}: {self.heads} attention heads do not divide a width of {self.hidden}")
        if self.window < 3 or self.skipped < 0:
            raise ValueError(f"{file}: max_position_embeddings of {self.positions} leaves no room for a text")


def advised(folder: Path) -> int | None:
    """Where sentence-transformers cuts inputs, in tokens: a length its authors advise, not all the model can read."""
    file = folder / "sentence_bert_config.json"
    if not file.exists():
        return None
    length = _json(file).get("max_seq_length")
    if length is None or (isinstance(length, int) and not isinstance(length, bool) and length > 0):
        return length
    raise ValueError(f"{file}: max_seq_length is {length!r}, which is no number of tokens")


def _check_head(file: Path, told: dict[str, Any], family: Family) -> None:
    named = told.get("architectures")
    if named != [family.head]:
        raise ValueError(f"{file}: architectures is {named!r}; a reranker of this family is {family.head}")
    names = told.get("id2label")
    labels = len(names) if isinstance(names, dict) else told.get("num_labels", 2)
    if labels != 1:
        raise ValueError(f"{file}: num_labels is {labels!r}; a reranker has one label, the relevance")
    asked = told.get("problem_type")
    if asked not in (None, "regression", "single_label_classification", "multi_label_classification"):
        raise ValueError(f"{file}: problem_type is {asked!r}, which is not known here")


def _pooling(folder: Path) -> Pooling:
    """How token states become one vector; the mean where the model does not say."""
    where = _pooling_folder(folder)
    if where is None:
        return "mean"
    file = where / "config.json"
    told = _json(file)
    if (mode := told.get("pooling_mode")) is not None:
        if mode in _POOLED:
            return _POOLED[mode]
        raise ValueError(f"{file}: pooling_mode is {mode!r}; this engine serves {_either(_POOLED)}")
    modes = sorted(key for key, value in told.items() if key.startswith("pooling_mode_") and value is True)
    if len(modes) == 1 and modes[0] in _MODES:
        return _MODES[modes[0]]
    raise ValueError(f"{file}: says {modes}; this engine serves one of {_either(_MODES)}")


def _pooling_folder(folder: Path) -> Path | None:
    file = folder / "modules.json"
    usual = folder / "1_Pooling"
    if not file.exists():
        return usual if (usual / "config.json").exists() else None
    found: Path | None = None
    for module in _modules(file):
        kind = str(module.get("type")).rpartition(".")[2]
        path = str(module.get("path", ""))
        if kind not in _MODULES:
            raise ValueError(f"{file}: has a module {module.get('type')!r}; this engine serves {_either(_MODULES)}")
        if kind == "Transformer" and path:
            raise ValueError(f"{file}: the weights are in the folder {path!r}; name that folder as the source")
        if kind == "Pooling":
            if found is not None or not path or Path(path).name != path:
                raise ValueError(f"{file}: should name one folder for Pooling")
            found = folder / path
    if found is None:
        raise ValueError(f"{file}: has no module Pooling, so a text would have many vectors")
    return found


def _modules(file: Path) -> list[dict[str, Any]]:
    told = _parsed(file)
    if not isinstance(told, list) or not all(isinstance(module, dict) for module in told):
        raise ValueError(f"{file}: should hold a JSON list of modules")
    return told


def _json(file: Path) -> dict[str, Any]:
    told = _parsed(file)
    if not isinstance(told, dict):
        raise ValueError(f"{file}: should hold a JSON object")
    return told


def _parsed(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file}: is not JSON: {error}") from error


def _either(names: Any) -> str:
    *most, last = names
    return f"{', '.join(most)} or {last}"
