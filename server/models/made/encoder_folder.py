"""Makes small random encoders of each family as Hugging Face and sentence-transformers folders, without a network.

Their vocabularies are learned from one fixed text, so the same arguments make the same files.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from server.models.made.vocabulary import texts

FAMILIES = ("bert", "roberta", "xlm-roberta", "distilbert")
HIDDEN, INNER, LAYERS, HEADS = 32, 48, 2, 4
_TOKENS = 600
_CLASSES = {"bert": "Bert", "roberta": "Roberta", "xlm-roberta": "XLMRoberta", "distilbert": "DistilBert"}
_WORDPIECE = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
_MARKED = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


def write_encoder(
    folder: Path, family: str, *, window: int = 64, labels: int = 0, pooling: str = "mean", seed: int = 7
) -> Path:
    """All files of an encoder that reads `window` tokens, at `folder`, which is given back.

    With `labels` it is a sequence classifier, else an embedder; `pooling` is mean, cls or lasttoken.
    """
    folder.mkdir(parents=True)
    tokenizer = _tokenizer(family)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = _config(family, tokenizer.get_vocab_size(), window, labels)
    _write(folder / "config.json", config)
    save_file(_weights(family, config, labels, seed), folder / "model.safetensors")
    if not labels:
        _write_sentence(folder, pooling, window)
    return folder


def _tokenizer(family: str) -> Tokenizer:
    if family in ("bert", "distilbert"):
        tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        tokenizer.normalizer = normalizers.BertNormalizer()
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece()
        trainer: Any = trainers.WordPieceTrainer(vocab_size=_TOKENS, special_tokens=_WORDPIECE, show_progress=False)
    else:
        tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
        bytewise = family == "roberta"
        tokenizer.pre_tokenizer = (
            pre_tokenizers.ByteLevel(add_prefix_space=False) if bytewise else pre_tokenizers.Metaspace()
        )
        tokenizer.decoder = decoders.ByteLevel() if bytewise else decoders.Metaspace()
        alphabet = pre_tokenizers.ByteLevel.alphabet() if bytewise else []
        trainer = trainers.BpeTrainer(
            vocab_size=_TOKENS, special_tokens=_MARKED, initial_alphabet=alphabet, show_progress=False
        )
    tokenizer.train_from_iterator(texts(), trainer)
    tokenizer.post_processor = _frame(family, tokenizer)
    return tokenizer


def _frame(family: str, tokenizer: Tokenizer) -> Any:
    """As the published tokenizer.json files of these families frame one text and two."""
    if family in ("bert", "distilbert"):
        single, pair, names = "[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", ("[CLS]", "[SEP]")
    else:
        single, pair, names = "<s> $A </s>", "<s> $A </s> </s> $B </s>", ("<s>", "</s>")
    special = [(name, tokenizer.token_to_id(name)) for name in names]
    return processors.TemplateProcessing(single=single, pair=pair, special_tokens=special)


def _config(family: str, vocabulary: int, window: int, labels: int) -> dict[str, Any]:
    kind = "ForSequenceClassification" if labels else "Model"
    config: dict[str, Any] = {
        "architectures": [f"{_CLASSES[family]}{kind}"],
        "model_type": family,
        "vocab_size": vocabulary,
        "pad_token_id": 0,
        "max_position_embeddings": window,
    }
    if labels:
        config["id2label"] = {str(number): f"LABEL_{number}" for number in range(labels)}
        config["label2id"] = {f"LABEL_{number}": number for number in range(labels)}
    if family == "distilbert":
        config |= {"dim": HIDDEN, "hidden_dim": INNER, "n_layers": LAYERS, "n_heads": HEADS, "activation": "gelu"}
        return config
    config |= {
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
        "type_vocab_size": 2,
    }
    if family != "bert":
        # Their padding is token 1, after which positions begin.
        config |= {"pad_token_id": 1, "max_position_embeddings": window + 2, "type_vocab_size": 1}
        config |= {"layer_norm_eps": 1e-5, "bos_token_id": 0, "eos_token_id": 2}
    return config


def _weights(family: str, config: dict[str, Any], labels: int, seed: int) -> dict[str, NDArray[np.float32]]:
    shapes = _distil_shapes(config) if family == "distilbert" else _bert_shapes(config)
    if labels:
        body = "roberta" if family == "xlm-roberta" else family
        shapes = {f"{body}.{name}": shape for name, shape in shapes.items()} | _head_shapes(family, labels)
    random = np.random.default_rng(seed)
    return {name: _drawn(random, name, shape) for name, shape in shapes.items()}


def _drawn(random: np.random.Generator, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Wide enough that texts get vectors of their own, and scores that are neither 0 nor 1."""
    norm = "orm.weight" in name
    return (random.normal(1 if norm else 0, 0.2 if len(shape) > 1 else 0.1, shape)).astype(np.float32)


def _embedding_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    return {
        "embeddings.word_embeddings.weight": (config["vocab_size"], HIDDEN),
        "embeddings.position_embeddings.weight": (config["max_position_embeddings"], HIDDEN),
        "embeddings.LayerNorm.weight": (HIDDEN,),
        "embeddings.LayerNorm.bias": (HIDDEN,),
    }


def _bert_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    shapes = _embedding_shapes(config)
    shapes["embeddings.token_type_embeddings.weight"] = (config["type_vocab_size"], HIDDEN)
    for layer in range(LAYERS):
        name = f"encoder.layer.{layer}"
        for part in ("self.query", "self.key", "self.value", "output.dense"):
            shapes |= _linear(f"{name}.attention.{part}", HIDDEN, HIDDEN)
        shapes |= _linear(f"{name}.intermediate.dense", HIDDEN, INNER) | _linear(f"{name}.output.dense", INNER, HIDDEN)
        for part in ("attention.output.LayerNorm", "output.LayerNorm"):
            shapes |= {f"{name}.{part}.weight": (HIDDEN,), f"{name}.{part}.bias": (HIDDEN,)}
    return shapes


def _distil_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    shapes = _embedding_shapes(config)
    for layer in range(LAYERS):
        name = f"transformer.layer.{layer}"
        for part in ("q_lin", "k_lin", "v_lin", "out_lin"):
            shapes |= _linear(f"{name}.attention.{part}", HIDDEN, HIDDEN)
        shapes |= _linear(f"{name}.ffn.lin1", HIDDEN, INNER) | _linear(f"{name}.ffn.lin2", INNER, HIDDEN)
        for part in ("sa_layer_norm", "output_layer_norm"):
            shapes |= {f"{name}.{part}.weight": (HIDDEN,), f"{name}.{part}.bias": (HIDDEN,)}
    return shapes


def _head_shapes(family: str, labels: int) -> dict[str, tuple[int, ...]]:
    if family == "bert":
        return _linear("bert.pooler.dense", HIDDEN, HIDDEN) | _linear("classifier", HIDDEN, labels)
    if family == "distilbert":
        return _linear("pre_classifier", HIDDEN, HIDDEN) | _linear("classifier", HIDDEN, labels)
    return _linear("classifier.dense", HIDDEN, HIDDEN) | _linear("classifier.out_proj", HIDDEN, labels)


def _linear(name: str, come: int, go: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (go, come), f"{name}.bias": (go,)}


def _write_sentence(folder: Path, pooling: str, window: int) -> None:
    """The files by which sentence-transformers puts a pooling and a norm behind the encoder."""
    kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
    modules = [
        {"idx": at, "name": str(at), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for at, (path, kind) in enumerate(kinds.items())
    ]
    _write(folder / "modules.json", modules)
    _write(folder / "sentence_bert_config.json", {"max_seq_length": window, "do_lower_case": False})
    (folder / "1_Pooling").mkdir()
    modes = {"mean": "mean_tokens", "cls": "cls_token", "max": "max_tokens", "lasttoken": "lasttoken"}
    told: dict[str, Any] = {f"pooling_mode_{name}": mode == pooling for mode, name in modes.items()}
    _write(folder / "1_Pooling" / "config.json", told | {"word_embedding_dimension": HIDDEN})


def _write(file: Path, value: object) -> None:
    file.write_text(json.dumps(value, indent=2), encoding="utf-8")
