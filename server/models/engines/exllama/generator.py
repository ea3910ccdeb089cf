"""What an ExLlama package is to the engine: a loaded model with a generator, driven by one thread."""

import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from server.models.engines.exllama.answer import Answer
from server.models.engines.exllama.vision import Tower

PAGE = 256
"""Tokens of a page of the cache, in both packages."""

LEASE = 1024
"""The most tokens of an answer that pages are kept free for; one that goes on takes its next ones when it gets there.

Both packages set aside, when a request starts, pages for the longest answer it may have, which few come near.
"""

CHUNK = 2048
"""Tokens of a prompt that are computed in one step."""


def pages(tokens: int) -> int:
    """How many pages hold so many tokens."""
    return -(-tokens // PAGE)


@dataclass(frozen=True)
class Wanted:
    """What is to be loaded. `context` and `tokens` of cache are in tokens, `guesses` those drafted at a time, or 0.

    `split` is how many GB of each GPU may be taken, empty for as it comes.
    """

    folder: Path
    context: int
    tokens: int
    parallel: int
    cache: str = "fp16"
    guesses: int = 0
    drafter: Path | None = None
    adapters: dict[str, Path] = field(default_factory=dict)
    split: tuple[float, ...] = ()
    tensor_parallel: bool = False
    image: int | None = None
    """The token that stands for a part of a picture; None where pictures are not to be seen."""
    control: dict[str, int] = field(default_factory=dict)
    """The control tokens by their texts."""
    name: str = ""
    """What the user knows the folder by: another one may stand in for it."""


class Generator(Protocol):
    """A model in the memory of one or more GPUs. Contract: one thread, its owner, calls every method.

    `attention` names the kernel that computes attention, `version` the package; `vocabulary` is that of the logits.
    """

    version: str
    attention: str
    device: str
    vocabulary: int
    weights_bytes: int
    cache_bytes: int

    @property
    def tower(self) -> Tower | None:
        """What looks at pictures, for a model that sees them."""
        ...

    def start(self, answer: Answer) -> None:
        """Queue an answer, or go on with one: what of its tokens is still in pages is not computed again."""
        ...

    def iterate(self) -> list[Answer]:
        """One pass over what is queued; returns the answers whose pages are used up although they are not over.

        Answers are told their tokens by `Answer.choose`. Raises where the GPU failed: nothing of this model can go on.
        """
        ...

    def drop(self, answer: Answer) -> None:
        """Let an answer's pages go. Idempotent."""
        ...

    def adapt(self, adapter: str | None) -> None:
        """Compute with this adapter from now on, or with none. Nothing may be queued."""
        ...

    def close(self) -> None:
        """Free the memory. Idempotent."""
        ...


def beside(split: tuple[float, ...], taken: int) -> list[float]:
    """How many GB of each GPU are left of `split` where so many bytes of the first one used are taken."""
    left = list(split)
    first = next((number for number, share in enumerate(left) if share > 0), None)
    if first is not None:
        left[first] = max(0.0, left[first] - taken / 2**30)
    return left


# ---- what both packages' queues take alike --------------------------------------------------------------------------


def enqueue(queue: Any, answer: Answer, job: Any) -> None:
    """Give a package's own generator the answer's next job; an answer that goes on comes before those that wait."""
    answer.job = job
    queue.enqueue(job)
    if answer.written > 0:
        queue.pending_jobs.insert(0, queue.pending_jobs.pop())


def drop(queue: Any, answer: Answer) -> None:
    """Take the answer's job back. Idempotent."""
    if answer.job is not None:
        queue.cancel(answer.job)
        answer.job = None


def unfinished(result: dict[str, Any], answer: Answer) -> bool:
    """Whether a package's result ends the job of an answer that is to go on."""
    if not result["eos"]:
        return False
    answer.job = None
    return not answer.over


def compute_all(job: Any) -> None:
    """Give a queued job's pages names that none has, so that nothing of its prompt is taken from pages."""
    for sequence in job.sequences:
        sequence.page_hashes = [secrets.token_bytes(16) for _ in sequence.page_hashes]
        job.all_unique_hashes = list(sequence.page_hashes)
