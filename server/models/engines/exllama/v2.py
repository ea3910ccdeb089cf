"""ExLlamaV2 0.3.2 behind `Generator`: its model, its caches, and its generator with jobs that Hearth chooses for.

Importing this module imports torch and the package, whose compiled extension has to be at hand: see `extension`.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import exllamav2
import torch
from exllamav2.generator import ExLlamaV2DynamicGenerator, ExLlamaV2DynamicJob, ExLlamaV2Sampler

from server.models.engines.exllama import attention
from server.models.engines.exllama.answer import Answer
from server.models.engines.exllama.generator import (
    CHUNK,
    LEASE,
    PAGE,
    Wanted,
    beside,
    compute_all,
    drop,
    enqueue,
    pages,
    unfinished,
)
from server.models.engines.exllama.v2_tower import V2Tower

log = logging.getLogger(__name__)

_CACHES = {
    "fp16": exllamav2.ExLlamaV2Cache,
    "q8": exllamav2.ExLlamaV2Cache_Q8,
    "q6": exllamav2.ExLlamaV2Cache_Q6,
    "q4": exllamav2.ExLlamaV2Cache_Q4,
}
_QUEUED = 8
"""Tokens of one sequence that ExLlamaV2 makes room for in a pass that generates."""
_NONE = torch.empty((1, 1), device="meta")
_CERTAIN = torch.ones((1, 1))


_HEAD_NORMS = ("Qwen3ForCausalLM", "Qwen3MoeForCausalLM")
"""Architectures that normalise queries and keys by their root mean square; ExLlamaV2 takes their mean away too."""
_WINDOWED = ("MistralForCausalLM", "MixtralForCausalLM", "Phi3ForCausalLM", "Starcoder2ForCausalLM")
"""Architectures whose `sliding_window` holds in every layer, which ExLlamaV2 reads and passes over."""


class _Pieces:
    """What ExLlamaV2's generator asks a tokenizer for. Hearth reads and writes text itself: here tokens have none."""

    eos_token_id = -1

    def __init__(self, size: int) -> None:
        self._none = [""] * size

    def get_id_to_piece_list(self, include_special_tokens: bool = False) -> list[str]:
        return self._none

    def get_vocab_size(self) -> int:
        return len(self._none)


class _Job(ExLlamaV2DynamicJob):  # type: ignore[misc]  # the package has no types
    """A stretch of one answer, whose tokens the answer chooses itself."""

    def __init__(self, answer: Answer, guesses: int) -> None:
        # The generator ends a job as many tokens early as it guesses ahead.
        most = min(max(answer.left, 1), LEASE) + guesses
        ids = torch.tensor([answer.ids], dtype=torch.long)
        super().__init__(ids, most, gen_settings=ExLlamaV2Sampler.Settings.greedy(), embeddings=answer.embeddings)
        self.answer = answer

    def receive_logits(self, logits: Any) -> tuple[Any, Any, Any, Any, bool]:
        answer = self.answer
        if answer.cached is None:
            answer.cached = min(self.cached_pages * PAGE + self.cached_tokens, len(answer.tokens) - 1)
        row = logits[0, 0, : self.generator.model.config.vocab_size].numpy()
        token = answer.choose(row)
        return torch.tensor([[token]]), _NONE, _NONE, _CERTAIN, answer.over


class _Read(_Job):
    """A stretch whose prompt is scored: all of it is computed, and nothing of it taken from pages."""

    def prepare_for_queue(self, generator: Any, serial_number: int) -> None:
        super().prepare_for_queue(generator, serial_number)
        compute_all(self)

    def prefill(self, results: list[dict[str, Any]]) -> None:
        generator = self.generator
        usual = generator.model, generator.all_pages, generator.max_chunk_size
        # No page is like these, the last layer is computed too, and as much at once as its logits have room for.
        generator.model, generator.all_pages, generator.max_chunk_size = _Listening(usual[0], self.answer), [], PAGE
        try:
            super().prefill(results)
        finally:
            generator.model, generator.all_pages, generator.max_chunk_size = usual


class _Listening:
    """A model whose every pass tells an answer how likely its prompt was."""

    def __init__(self, model: Any, answer: Answer) -> None:
        self.config = model.config
        self._model = model
        self._answer = answer

    def forward_chunk(self, **asked: Any) -> Any:
        found = self._model.forward_chunk(**{**asked, "preprocess_only": False})
        self._answer.score(found["logits"][0, :, : self.config.vocab_size].float().cpu().numpy())
        return found


class _Generator(ExLlamaV2DynamicGenerator):  # type: ignore[misc]
    """Tells the attention how long sequences are, before each pass."""

    longest: attention.Longest

    def get_paged_params(
        self,
        batch_size: int,
        block_index: Any,
        cache_seqlens: Any,
        q_len: int,
        alt_rope_embed: Any = None,
        rope_offsets: Any = None,
    ) -> Any:
        self.longest.rows = int(cache_seqlens.max()) + q_len
        return super().get_paged_params(batch_size, block_index, cache_seqlens, q_len, alt_rope_embed, rope_offsets)


class V2:
    """See `Generator`."""

    def __init__(self, wanted: Wanted, drafter: Path | None, progress: Callable[[str], None]) -> None:
        """Loads `wanted.folder` and `drafter`, folders that ExLlamaV2 reads. Raises ValueError naming the folder."""
        self.version = str(exllamav2.__version__)
        self.attention, self._longest = attention.register()
        self._wanted = wanted
        config = self._config(wanted.folder)
        self.tower = None if wanted.image is None else self._tower(config, wanted.image, progress)
        self._model, self._cache = self._loaded(config, wanted.cache, wanted.name, progress)
        if self.tower is not None:
            self.tower.serve(self._model)
        draft = {}
        if drafter is not None:
            small, kept = self._loaded(self._config(drafter), "fp16", "the draft", progress)
            draft = {"draft_model": small, "draft_cache": kept}
        self.vocabulary = int(self._model.config.vocab_size)
        self._generator = _Generator(
            model=self._model,
            cache=self._cache,
            tokenizer=_Pieces(self.vocabulary + 31),
            max_batch_size=wanted.parallel,
            max_chunk_size=CHUNK,
            max_q_size=max(_QUEUED, wanted.guesses + 1),
            num_draft_tokens=wanted.guesses,
            use_ngram_draft=bool(wanted.guesses) and drafter is None,
            **draft,
        )
        self._generator.longest = self._longest
        self._loras = {name: self._lora(name, folder, progress) for name, folder in wanted.adapters.items()}
        self.weights_bytes = sum(module.weight_footprint() for module in self._model.modules)
        self.weights_bytes += 0 if self.tower is None else self.tower.weights_bytes
        self.cache_bytes = _bytes(self._cache)
        if drafter is not None:
            self.weights_bytes += sum(module.weight_footprint() for module in draft["draft_model"].modules)
            self.cache_bytes += _bytes(draft["draft_cache"])
        self.device = ", ".join(sorted({str(each.device) for each in self._cache.all_tensors()}))
        log.info("ExLlamaV2 %s computes attention by %s on %s", self.version, self.attention, self.device)

    def _config(self, folder: Path) -> Any:
        wanted = self._wanted
        try:
            config = exllamav2.ExLlamaV2Config(str(folder))
        except (AssertionError, ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{folder}: ExLlamaV2 {self.version} cannot read it: {error}") from error
        # Its own fallback to torch has no causal mask.
        config.no_sdpa = True
        config.max_seq_len = wanted.context + wanted.guesses
        config.max_input_len = max(CHUNK, pages(wanted.parallel * max(_QUEUED, wanted.guesses + 1)) * PAGE)
        if config.architecture in _HEAD_NORMS:
            config.arch.lm.headnorm = "rmsnorm"
        return config

    def _tower(self, config: Any, image: int, progress: Callable[[str], None]) -> V2Tower:
        wanted = self._wanted

        def told(done: int, of: int) -> None:
            progress(f"loading what sees pictures: {done} of {of} parts")

        try:
            return V2Tower(config, image, wanted.control, list(wanted.split) or None, told)
        except (AssertionError, ValueError, TypeError, KeyError) as error:
            raise ValueError(
                f"{wanted.folder}: ExLlamaV2 {self.version} cannot read what sees pictures: {error}"
            ) from error

    def _loaded(self, config: Any, cache: str, name: str, progress: Callable[[str], None]) -> tuple[Any, Any]:
        wanted = self._wanted
        model = exllamav2.ExLlamaV2(config)
        _correct_windows(model)

        def told(done: int, of: int) -> None:
            progress(f"loading {name}: {done} of {of} parts")

        kind = _CACHES[cache]
        if torch.cuda.device_count() > 1 and not wanted.split:
            kept = kind(model, max_seq_len=wanted.tokens, lazy=True)
            model.load_autosplit(kept, callback=told)
        else:
            split = beside(wanted.split, 0 if self.tower is None else self.tower.weights_bytes)
            model.load(split or None, callback=told)
            kept = kind(model, max_seq_len=wanted.tokens)
        return model, kept

    def _lora(self, name: str, folder: Path, progress: Callable[[str], None]) -> Any:
        progress(f"reading the adapter {name}")
        try:
            return exllamav2.ExLlamaV2Lora.from_directory(self._model, str(folder))
        except (AssertionError, ValueError, KeyError, OSError) as error:
            raise ValueError(f"{folder}: ExLlamaV2 {self.version} cannot read the adapter {name}: {error}") from error

    def start(self, answer: Answer) -> None:
        enqueue(self._generator, answer, (_Read if answer.scores else _Job)(answer, self._wanted.guesses))

    def iterate(self) -> list[Answer]:
        results = [(result, result["job"].answer) for result in self._generator.iterate()]
        return [answer for result, answer in results if unfinished(result, answer)]

    def drop(self, answer: Answer) -> None:
        drop(self._generator, answer)

    def adapt(self, adapter: str | None) -> None:
        if adapter is None:
            self._generator.current_loras = None  # `set_loras(None)` makes it an empty list, over which passes fail
        else:
            self._generator.set_loras([self._loras[adapter]])
        # Keys and values of another adapter are not those of this one.
        self._generator.reset_page_table()

    def close(self) -> None:
        self._generator.clear_queue()
        for pool in (self._generator.sampling_pool, self._generator.filter_pool):
            pool.shutdown(wait=True)
        if self.tower is not None:
            self.tower.close()
        self._model.unload()
        if self._generator.draft_model is not None:
            self._generator.draft_model.unload()


def _correct_windows(model: Any) -> None:
    """A window of n tokens counts the newest one, and flash-attn's, which is handed on, does not."""
    config = model.config
    for module in model.modules:
        if not hasattr(module, "sliding_window"):
            continue
        window = module.sliding_window or (config.sliding_window if config.architecture in _WINDOWED else 0)
        module.sliding_window = max(0, window - 1)


def _bytes(cache: Any) -> int:
    lists = [cache.key_states, cache.value_states, cache.key_scales, cache.value_scales]
    return sum(each.numel() * each.element_size() for tensors in lists for each in tensors)
