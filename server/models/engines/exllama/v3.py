"""ExLlamaV3 1.6.5 behind `Generator`: it brings its own attention, samples on the GPU, and splits over several.

Importing this module imports torch and the package, whose compiled extension has to be at hand: see `extension`.
"""

import logging
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from exllamav3 import Cache, CacheLayer_fp16, CacheLayer_quant, Config, Job, Model, Tokenizer
from exllamav3 import Generator as PagedGenerator
from exllamav3.generator.sampler.sampler import Sampler
from exllamav3.model.lora import LoRA

from server.errors import ServiceError
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
    unfinished,
)
from server.models.engines.exllama.v3_tower import V3Tower
from server.models.header import parts

log = logging.getLogger(__name__)

_ATTENTION = "ExLlamaV3's own kernels"
_BITS = {"q8": 8, "q6": 6, "q4": 4}
_FAULTS = (AssertionError, ValueError, TypeError, KeyError, FileNotFoundError, NotImplementedError)
"""What the package raises over files that it cannot read."""


class _Chosen(Sampler):  # type: ignore[misc]  # the package has no types
    """Lets an answer choose: one row of logits comes to the processor, one token goes back."""

    def __init__(self, answer: Answer, size: int, guessing: bool) -> None:
        super().__init__()
        self._answer = answer
        self._size = size
        # Else all places of a guess are sampled at once, and an answer chooses one token after another.
        self.reqs_past_ids = guessing

    def forward(self, logits: Any, *_: Any, **__: Any) -> Any:
        row = logits.reshape(-1)[: self._size].float().cpu().numpy()
        return torch.tensor([[self._answer.choose(row)]])


class _Read(Job):  # type: ignore[misc]
    """A stretch whose prompt is scored: all of it is computed, and nothing of it taken from pages."""

    def prepare_for_queue(self, generator: Any, serial_number: int, rq: bool = False) -> None:
        super().prepare_for_queue(generator, serial_number, rq)
        compute_all(self)

    def prefill(self, results: list[dict[str, Any]], chunk_size: int | None = None) -> None:
        generator, pages = self.generator, self.pagetable.all_pages
        usual = generator.model
        # No page is like these, the last layer is computed too, and as much at once as its logits have room for.
        generator.model, self.pagetable.all_pages = _Listening(usual, self.identifier), []
        try:
            super().prefill(results, min(chunk_size or PAGE, PAGE))
        finally:
            generator.model, self.pagetable.all_pages = usual, pages


class _Listening:
    """A model that computes its logits when it reads a prompt too, and tells an answer how likely that was."""

    def __init__(self, model: Any, answer: Answer) -> None:
        self._model = model
        self._answer = answer

    def prefill(self, input_ids: Any, params: dict[str, Any]) -> Any:
        found = self._model.forward(input_ids=input_ids, params=params)
        self._answer.score(found[0, :, : self._model.config.vocab_size].float().cpu().numpy())
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


class V3:
    """See `Generator`."""

    def __init__(self, wanted: Wanted, progress: Callable[[str], None]) -> None:
        """Loads `wanted.folder`. Raises ValueError naming the folder."""
        self.version = metadata.version("exllamav3")
        self.attention = _ATTENTION
        self._wanted = wanted
        draft: dict[str, Any] = {}
        if wanted.drafter is not None:
            small, kept = self._read(self._settings(wanted.drafter), "fp16", "the draft", progress)
            draft = {"draft_model": small, "draft_cache": kept}
        settings = self._settings(wanted.folder)
        tokenizer = Tokenizer.from_config(settings)
        self.tower = None if wanted.image is None else self._tower(settings, tokenizer, wanted.image, progress)
        self._model, self._cache = self._read(settings, wanted.cache, wanted.name, progress)
        self.vocabulary = int(settings.vocab_size)
        self._generator = PagedGenerator(
            model=self._model,
            cache=self._cache,
            tokenizer=tokenizer,
            max_batch_size=wanted.parallel,
            max_chunk_size=CHUNK,
            num_draft_tokens=wanted.guesses or None,
            ngram_match_min=2 if wanted.guesses and wanted.drafter is None else 0,
            **draft,
        )
        self._adapter: Any = None
        folders = [wanted.folder] + ([] if wanted.drafter is None else [wanted.drafter])
        self.weights_bytes = sum(file.stat().st_size for folder in folders for file in parts(folder))
        caches = [self._cache, *([draft["draft_cache"]] if draft else [])]
        self.cache_bytes = int(sum(layer.storage_size() for cache in caches for layer in cache.layers.values()))
        self.device = str(self._model.output_device)
        log.info("ExLlamaV3 %s computes attention by %s on %s", self.version, self.attention, self.device)

    def _settings(self, folder: Path) -> Any:
        try:
            return Config.from_directory(str(folder))
        except _FAULTS as error:
            raise ValueError(f"{folder}: ExLlamaV3 {self.version} cannot load it: {error}") from error

    def _tower(self, settings: Any, tokenizer: Any, image: int, progress: Callable[[str], None]) -> V3Tower:
        def told(done: int, of: int) -> None:
            progress(f"loading what sees pictures: {done} of {of} parts")

        try:
            return V3Tower(settings, tokenizer, image, list(self._wanted.split) or None, told)
        except _FAULTS as error:
            raise ValueError(
                f"{settings.directory}: ExLlamaV3 {self.version} cannot load what sees pictures: {error}"
            ) from error

    def _read(self, settings: Any, cache: str, name: str, progress: Callable[[str], None]) -> tuple[Any, Any]:
        wanted, folder = self._wanted, Path(settings.directory)
        bits = _BITS.get(cache)
        kind = (
            {"layer_type": CacheLayer_fp16}
            if bits is None
            else {
                "layer_type": CacheLayer_quant,
                "k_bits": bits,
                "v_bits": bits,
            }
        )
        split = beside(wanted.split, 0 if self.tower is None else self.tower.weights_bytes)
        try:
            model = Model.from_config(settings)
            kept = Cache(
                model,
                max_num_tokens=wanted.tokens,
                max_batch_size=wanted.parallel,
                max_history=wanted.guesses,
                **kind,
            )
            model.load(
                use_per_device=split or None,
                tensor_p=wanted.tensor_parallel,
                max_chunk_size=CHUNK,
                callback=lambda done, of: progress(f"loading {name}: {done} of {of} parts"),
            )
        except _FAULTS as error:
            raise ValueError(f"{folder}: ExLlamaV3 {self.version} cannot load it: {error}") from error
        return model, kept

    def start(self, answer: Answer) -> None:
        guesses = self._wanted.guesses
        kind = _Read if answer.scores else Job
        job = kind(
            torch.tensor([answer.ids], dtype=torch.long),
            max_new_tokens=min(max(answer.left, 1), LEASE) + guesses,
            sampler=_Chosen(answer, self.vocabulary, guesses > 0),
            identifier=answer,
            embeddings=answer.embeddings,
        )
        enqueue(self._generator, answer, job)

    def iterate(self) -> list[Answer]:
        found = []
        for result in self._generator.iterate():
            job = result["job"]
            answer: Answer = job.identifier
            if answer.cached is None and job.new_tokens > 0:
                answer.cached = min(job.cached_pages * PAGE + job.cached_tokens, len(answer.admission.tokens) - 1)
            if result["stage"] == "error":
                answer.fault = ServiceError(f"ExLlamaV3 broke off the answer: {result['error']}")
            if unfinished(result, answer):
                found.append(answer)
        return found

    def drop(self, answer: Answer) -> None:
        drop(self._generator, answer)

    def adapt(self, adapter: str | None) -> None:
        if self._adapter is not None:
            self._adapter.unload()
            self._adapter = None
        if adapter is not None:
            folder = self._wanted.adapters[adapter]
            try:
                self._adapter = LoRA.from_directory(self._model, str(folder))
            except (ValueError, KeyError, OSError) as error:
                raise ValueError(f"{folder}: ExLlamaV3 {self.version} cannot read the adapter: {error}") from error
        # Keys and values of another adapter are not those of this one.
        self._generator.pagetable.reset_page_table()

    def close(self) -> None:
        self._generator.clear_queue()
        self._generator.close()
        if self.tower is not None:
            self.tower.close()
        self._model.unload()
