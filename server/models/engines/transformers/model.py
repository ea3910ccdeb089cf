"""A causal language model by the transformers library: a folder to logits; knows nothing of requests or text.

torch and transformers are imported when a model is read, in the worker that runs it.
"""

import inspect
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.models.engines.sampling import vocabulary
from server.models.engines.sampling.vocabulary import Vocabulary
from server.models.header import config

_EXTRA = "the engine transformers needs torch and transformers; run: scripts/setup transformers"
_SAME = 0.98
"""Least cosine of logits that differ by the rounding of bfloat16 alone."""
_COPIED = ("generation_config.json", "config.json")


class Causal:
    """A loaded model. One thread computes; what one conversation remembers is a cache, which the caller keeps."""

    def __init__(self, folder: Path, precision: str, threads: int | None) -> None:
        """`precision` is auto, f32 or bf16. Raises ValueError, naming the folder, where it cannot be read."""
        told = config(folder)
        try:
            import torch
            import transformers
        except ImportError as error:
            raise RuntimeError(f"{_EXTRA} ({error})") from error
        if threads is not None:
            torch.set_num_threads(threads)
        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        _refuse_foreign_code(folder, told, transformers)
        self.precision = precision if precision != "auto" else _fastest(torch)
        self._torch = torch
        self._cache = transformers.DynamicCache
        self._model = _read(folder, torch.float32 if self.precision == "f32" else torch.bfloat16)
        self._takes = inspect.signature(self._model.forward).parameters.keys()
        self._folder = folder
        self.family = str(self._model.config.model_type)
        # The library is renaming it. What has neither would ignore it, and forget what it has read.
        remembers = next((name for name in ("cache", "past_key_values") if name in self._takes), None)
        if remembers is None:
            raise ValueError(f"{folder}: a {self.family} model keeps nothing of what it has read, as this engine needs")
        self._remembers = remembers
        text = self._model.config.get_text_config()
        self.vocabulary = int(text.vocab_size)
        self.context: int | None = getattr(text, "max_position_embeddings", None)
        self.weights_bytes = sum(each.numel() * each.element_size() for each in self._model.parameters())
        self.bytes_per_token = _bytes_per_token(text, 4 if self.precision == "f32" else 2)
        """Of a cache, all layers together."""

    def warm(self, count: int) -> float:
        """Compute `count` tokens once, at least 4, for the library to allocate what it keeps; returns tokens a second.

        Raises ValueError where a prompt in pieces is another one to this architecture than in one.
        """
        tokens = [token % self.vocabulary for token in range(count)]
        whole = self.compute(tokens, self.remembering(), 0, 1)[0]
        cache, half, started = self.remembering(), count // 2, time.perf_counter()
        self.compute(tokens[:half], cache, 0, 0)
        pieces = self.compute(tokens[half:], cache, half, 1)[0]
        seconds = time.perf_counter() - started
        if not np.isfinite(whole).all():
            raise ValueError(f"{self._folder}: corrupt: it computes values that are not numbers")
        if not np.dot(whole, pieces) >= _SAME * np.linalg.norm(whole) * np.linalg.norm(pieces):
            raise ValueError(
                f"{self._folder}: a {self.family} model forgets what it has read; this engine cannot serve it"
            )
        return count / seconds

    def remembering(self) -> Any:
        """An empty cache, of the kinds of layers this model has."""
        return self._cache(config=self._model.config)

    def compute(self, tokens: list[int], cache: Any, past: int, wanted: int) -> NDArray[np.float32]:
        """Logits f32 [wanted, vocabulary] of the last `wanted` of `tokens`, which follow the `past` tokens of `cache`.

        The tokens are in the cache afterwards.
        """
        torch = self._torch
        options: dict[str, Any] = {self._remembers: cache}
        if "logits_to_keep" in self._takes:
            options["logits_to_keep"] = max(wanted, 1)
        if "position_ids" in self._takes:
            options["position_ids"] = torch.arange(past, past + len(tokens))[None]
        with torch.inference_mode():
            found = self._model(input_ids=torch.tensor([tokens]), use_cache=True, **options)
            kept = found.logits[0, found.logits.shape[1] - wanted :, : self.vocabulary]
            logits: NDArray[np.float32] = kept.float().numpy()
        return logits


def words(folder: Path, size: int) -> Vocabulary:
    """The folder's tokenizer, made by transformers where there is no tokenizer.json. `size` is the model's vocabulary.

    Raises ValueError, naming the folder.
    """
    if (folder / "tokenizer.json").exists():
        return vocabulary.from_folder(folder, size)
    import transformers

    with tempfile.TemporaryDirectory(prefix="hearth-tokenizer-") as room:
        try:
            transformers.AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            ).save_pretrained(room)
        except _faults() as error:
            raise ValueError(f"{folder}: it has no tokenizer.json, and none can be made: {_first(error)}") from error
        if not (Path(room) / "tokenizer.json").exists():
            raise ValueError(f"{folder}: it has no tokenizer.json, and its kind of tokenizer has none")
        for name in _COPIED:
            if (folder / name).exists():
                (Path(room) / name).write_bytes((folder / name).read_bytes())
        return vocabulary.from_folder(Path(room), size)


def _refuse_foreign_code(folder: Path, told: dict[str, Any], transformers: Any) -> None:
    kind = told.get("model_type")
    if kind in transformers.CONFIG_MAPPING:
        return
    if told.get("auto_map"):
        why = "its architecture is code in the folder itself, and code that comes with weights is never run"
    else:
        why = f"its model_type {kind!r} is not one that transformers {transformers.__version__} reads"
    raise ValueError(f"{folder / 'config.json'}: {why}")


def _read(folder: Path, dtype: Any) -> Any:
    import transformers

    try:
        model, told = transformers.AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
    except _faults() as error:
        version = transformers.__version__
        raise ValueError(f"{folder}: transformers {version} cannot read it: {_first(error)}") from error
    # What is missing is filled with random numbers, and only a log line says so.
    for name, what in (("missing_keys", "missing"), ("mismatched_keys", "of another size than config.json says")):
        if told.get(name):
            tensor = min(str(each[0] if isinstance(each, tuple) else each) for each in told[name])
            raise ValueError(f"{folder}: the tensor {tensor} is {what}")
    return model.eval()


def _faults() -> tuple[type[Exception], ...]:
    """What transformers raises over a folder: its own checks, and whatever a wrong value meets on its way."""
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError

    usual = (OSError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RuntimeError, ImportError)
    return (*usual, StrictDataclassError, SafetensorError)


def _first(error: Exception) -> str:
    """The first line of a message that may have a page, without the paths of the library's insides."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _fastest(torch: Any) -> str:
    able = torch.cpu.get_capabilities()
    return "bf16" if able.get("avx512_bf16") or able.get("amx_bf16") or able.get("bf16") else "f32"


def _bytes_per_token(config: Any, size: int) -> int:
    """Of keys and values; 0 where the configuration names no heads, as that of a recurrent model does not."""
    layers, heads = getattr(config, "num_hidden_layers", 0), getattr(config, "num_attention_heads", 0)
    if not (layers and heads):
        return 0
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    return 2 * int(layers) * int(getattr(config, "num_key_value_heads", None) or heads) * int(width) * size
