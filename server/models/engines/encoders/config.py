"""What an encoder's folder declares: family, sizes, pooling, head. Reads JSON files; knows no weights and no runtime.

A setting that would change the numbers and is not computed here is refused by its name and file.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

Task = Literal["embed", "rerank"]
Pooling = Literal["mean", "cls", "last"]


@dataclass(frozen=True, kw_only=True)
class Family:
    """What tells one kind of encoder from another.

    `served` are settings and the one value each that is computed; `keys` are its own names for the sizes in
    config.json, and `old` other names that published files give them. `first` and `last` are the tokens around a text,
    None where the tokenizer alone decides; `tie` is how many of the last stand between the texts of a pair. `shifted`:
    position ids begin after pad_token_id. `head` is the class of its rerankers, None where it has none. `theta` is the
    base of its rotary positions where config.json does not say, 0 for a family with a table of positions.
    """

    name: str
    served: Mapping[str, Any]
    keys: Mapping[str, str]
    head: str | None
    epsilon: str = "layer_norm_eps"
    old: Mapping[str, str] = field(default_factory=dict)
    first: str | None = "[CLS]"
    last: str | None = "[SEP]"
    tie: int = 1
    shifted: bool = False
    theta: float = 0.0
    causal: bool = False


_BARE = {
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "hidden": "hidden_size",
    "inner": "intermediate_size",
}
_KEYS = _BARE | {"kinds": "type_vocab_size"}
_SHORT = {"layers": "n_layers", "heads": "n_heads", "hidden": "dim", "inner": "hidden_dim"}
_SERVED = {"hidden_act": "gelu", "position_embedding_type": "absolute", "is_decoder": False}
_MARKED: dict[str, Any] = {"served": _SERVED, "keys": _KEYS, "first": "<s>", "last": "</s>", "tie": 2, "shifted": True}

FAMILIES = {
    each.name: each
    for each in (
        Family(name="bert", served=_SERVED, keys=_KEYS, head="BertForSequenceClassification"),
        Family(name="roberta", head="RobertaForSequenceClassification", **_MARKED),
        Family(name="xlm-roberta", head="XLMRobertaForSequenceClassification", **_MARKED),
        # DistilBERT's classes fix the epsilon, and its config.json has no such key.
        Family(
            name="distilbert",
            served={"activation": "gelu"},
            keys=_SHORT,
            head="DistilBertForSequenceClassification",
            epsilon="",
        ),
        Family(
            name="modernbert",
            served={
                "hidden_activation": "gelu",
                "classifier_activation": "gelu",
                "attention_bias": False,
                "mlp_bias": False,
                "norm_bias": False,
                "classifier_bias": False,
            },
            keys=_BARE,
            head="ModernBertForSequenceClassification",
            epsilon="norm_eps",
            theta=160_000.0,
        ),
        Family(
            name="nomic_bert",
            served={
                "hidden_act": "silu",
                "activation_function": "swiglu",
                "qkv_proj_bias": False,
                "mlp_fc1_bias": False,
                "mlp_fc2_bias": False,
                "prenorm": False,
                "parallel_block": False,
                "causal": False,
                "use_rms_norm": False,
                "rotary_emb_fraction": 1.0,
                "rotary_emb_interleaved": False,
                "rotary_emb_scale_base": None,
                "num_experts": None,
            },
            keys=_KEYS,
            head=None,
            old={
                "hidden_size": "n_embd",
                "num_attention_heads": "n_head",
                "intermediate_size": "n_inner",
                "num_hidden_layers": "n_layer",
                "layer_norm_eps": "layer_norm_epsilon",
                # Up to here the published scaling of longer texts changes nothing, and beyond it nothing was trained.
                "max_position_embeddings": "max_trained_positions",
                "rope_theta": "rotary_emb_base",
            },
            theta=1000.0,
        ),
        Family(
            name="qwen3",
            served={"hidden_act": "silu", "attention_bias": False, "use_sliding_window": False, "rope_scaling": None},
            keys=_BARE,
            head=None,
            epsilon="rms_norm_eps",
            first=None,
            last=None,
            theta=10_000.0,
            causal=True,
        ),
    )
}

LONGEST = 8192
"""Tokens of an input that are read at most: more would keep the processor for minutes, in which nobody is served."""

_POOLED: dict[str, Pooling] = {"mean": "mean", "cls": "cls", "lasttoken": "last"}
_MODES: dict[str, Pooling] = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_lasttoken": "last",
}
_SEEN = 8
"""Bytes a pair of tokens takes in OpenVINO 2026.4, as f32 and again as attention wants it; half more for two masks."""
_SCORED: dict[str, Pooling] = {"cls": "cls", "mean": "mean"}
_MODULES = ("Transformer", "Pooling", "Normalize")


@dataclass(frozen=True)
class Rotary:
    """Positions that turn queries and keys. `local` says of each layer whether it sees only `reach` tokens around.

    `causal`: tokens see those before them alone.
    """

    theta: float
    local: tuple[bool, ...]
    causal: bool = False
    local_theta: float = 0.0
    reach: int = 0


@dataclass(frozen=True)
class Shape:
    """What config.json and the files of sentence-transformers say of the encoder.

    `positions` is how many rows its position table has, of which the first `skipped` are never used; with `rotary` in
    its place, how many tokens it was trained for. `kinds` is 0 for a family without token types. `pooling` is None with
    a scoring head in its place, which reads what `scored` makes of the states. A head is `head` numbers wide, and keys
    and values have `kv_heads` of them.
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
    head: int
    kv_heads: int
    rotary: Rotary | None = None
    scored: Pooling = "cls"

    @property
    def window(self) -> int:
        """The longest input in tokens, special ones included."""
        return self.positions - self.skipped

    @property
    def weights(self) -> int:
        """How many numbers of the layers' matrices a token is multiplied with."""
        attention = 2 * self.hidden * self.head * (self.heads + self.kv_heads)
        return self.layers * (attention + (2 if self.rotary is None else 3) * self.hidden * self.inner)

    @property
    def masks(self) -> int:
        """Bytes of what says which token sees which, for the longest input: every pair counts where not all do."""
        if self.rotary is None or not (self.rotary.causal or any(self.rotary.local)):
            return 0
        return self.window**2 * (_SEEN if self.rotary.causal else _SEEN + _SEEN // 2)

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
        told = {new: told[old] for new, old in family.old.items() if told.get(old) is not None} | told
        for key, served in family.served.items():
            # False, 0 and null are ways to say that there is none of it.
            if (value := told.get(key, served)) != served and (value or served):
                raise ValueError(f"{file}: {key} is {value!r}; this engine serves {served}")
        if task == "rerank":
            _check_head(file, told, family)
        pooling = _pooling(folder) if task == "embed" else None
        scored = _scored(file, told)
        try:
            sizes: dict[str, Any] = {name: int(told[key]) for name, key in family.keys.items()}
            shape = cls(
                family=family.name,
                **({"kinds": 0} | sizes),
                epsilon=float(told[family.epsilon] if family.epsilon else 1e-12),
                positions=int(told["max_position_embeddings"]),
                skipped=int(told["pad_token_id"]) + 1 if family.shifted else 0,
                vocabulary=int(told["vocab_size"]),
                pooling=pooling,
                head=int(told.get("head_dim") or sizes["hidden"] // max(1, sizes["heads"])),
                kv_heads=int(told.get("num_key_value_heads") or sizes["heads"]),
                scored=scored,
            )
        except KeyError as error:
            raise ValueError(f"{file}: has no {error}") from error
        except (TypeError, ValueError) as error:
            raise ValueError(f"{file}: a size is not a number: {error}") from error
        if family.theta:
            try:
                rotary = _rotary(told, family, shape.layers)
                shape = replace(shape, rotary=rotary, positions=min(shape.positions, LONGEST))
            except (AttributeError, TypeError, ValueError) as error:
                raise ValueError(f"{file}: {error}") from error
        shape._check(file)
        return shape

    def _check(self, file: Path) -> None:
        whole = self.hidden == self.heads * self.head or self.family == "qwen3"
        if min(self.layers, self.heads, self.kv_heads, self.head) < 1 or not whole or self.heads % self.kv_heads:
            raise ValueError(f"{file}: {self.heads} attention heads do not divide a width of {self.hidden}")
        if self.rotary is not None and self.head % 2:
            raise ValueError(f"{file}: a head of {self.head} has no halves to turn")
        if self.window < 3 or self.skipped < 0:
            raise ValueError(f"{file}: max_position_embeddings of {self.positions} leaves no room for a text")


def _rotary(told: dict[str, Any], family: Family, layers: int) -> Rotary:
    """transformers 5 moved theta into `rope_parameters`, by kinds of layers where there are several.

    Raises ValueError where rotary frequencies are stretched.
    """
    rope = told.get("rope_parameters") or {}
    wide, narrow = (rope.get(kind) or rope for kind in ("full_attention", "sliding_attention"))
    for scaling in (wide, narrow, told.get("rope_scaling") or {}):
        if (kind := scaling.get("rope_type", scaling.get("type", "default"))) != "default":
            raise ValueError(f"rope scaling of type {kind} is not computed here")
    theta = wide.get("rope_theta") or told.get("global_rope_theta") or told.get("rope_theta") or family.theta
    if family.name != "modernbert":
        return Rotary(float(theta), (False,) * layers, family.causal)
    kinds = told.get("layer_types")
    every = int(told.get("global_attn_every_n_layers") or 3)
    local = [bool(layer % every) for layer in range(layers)]
    if kinds is not None:
        local = [kind != "full_attention" for kind in kinds]
    if len(local) != layers:
        raise ValueError(f"layer_types names {len(local)} layers of {layers}")
    turned = narrow.get("rope_theta") or told.get("local_rope_theta") or 10_000.0
    reach = int(told.get("local_attention") or 128) // 2
    return Rotary(float(theta), tuple(local), family.causal, float(turned), reach)


def _scored(file: Path, told: dict[str, Any]) -> Pooling:
    """What a scoring head reads: the first token's state unless ModernBERT's setting says otherwise."""
    mode = told.get("classifier_pooling", "cls")
    if mode not in _SCORED:
        raise ValueError(f"{file}: classifier_pooling is {mode!r}; this engine serves {_either(_SCORED)}")
    return _SCORED[mode]


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
    if family.head is None:
        raise ValueError(f"{file}: this engine has no rerankers of the family {family.name}")
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
