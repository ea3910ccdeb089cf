"""A small llama that learned something: trained with torch on the tasks of `tiny_task`, the same weights every time.

About 70 seconds of one processor thread. It copies and counts; answering from the context it does no better than by
picking one of the pairs, for it would take more steps than this. Optimiser: Muon, kellerjordan.github.io/posts/muon.
"""

import hashlib
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from tests.making.oracle import MISSING
from tests.making.shapes import Shape, Tensor, tensors
from tests.making.tiny_task import NUMBERS, TASKS, WORDS, example
from tests.making.vocabulary import ENDOFTEXT, Vocabulary, learned
from tests.making.weights import Floats

_WIDTH, _LAYERS, _HEADS, _KV_HEADS, _FFN = 128, 5, 4, 2, 384
_BATCH, _STEPS, _GROWING = 32, 650, 0.3
"""Questions grow longer over the first part of the steps; the rate falls over the last one."""
_FALLING = 0.5
_MATRICES, _OTHERS = 0.02, 3e-3
"""Learning rates: Muon's for the layers' matrices, Adam's for the rest."""
_IGNORED = -100


class Tiny:
    """Shape, vocabulary and weights. Trained once: `cache` is the folder that keeps the weights for every format.

    Raises ValueError where they are to be trained and torch is not installed.
    """

    def __init__(self, seed: int, cache: Path, say: Callable[[str], None]) -> None:
        # Bytes in front, so that any text can be read; every word of the tasks, with its space, is one token.
        spoken = [f" {word}" for word in (*WORDS, *NUMBERS)] + [*TASKS, "user", "assistant"]
        self.vocabulary = learned(spoken, 4096, "gpt-2")
        size = -(-len(self.vocabulary.tokens) // 32) * 32
        width = _WIDTH // _HEADS
        self.shape = Shape(
            "llama", _WIDTH, _LAYERS, _HEADS, _KV_HEADS, width, _FFN, size, tied=False, theta=10_000.0, context=1024
        )
        kept = cache / f"tiny-weights-{_digest(seed)}.safetensors"
        if not kept.exists():
            _keep(_trained(self.shape, self.vocabulary, seed, say), kept)
        self._tensors: dict[str, Floats] = load_file(kept)

    def values(self, tensor: Tensor) -> Floats:
        return self._tensors[tensor.name]

    def blocks(self, tensor: Tensor, kind: gguf.GGMLQuantizationType) -> NDArray[np.uint8] | None:
        return None


def _digest(seed: int) -> str:
    """Of what decides the weights: this module, the tasks, and how a vocabulary is learned."""
    digest = hashlib.sha256(str(seed).encode())
    for name in ("tiny.py", "tiny_task.py", "vocabulary.py"):
        digest.update((Path(__file__).parent / name).read_bytes())
    return digest.hexdigest()[:8]


def _keep(tensors: dict[str, Floats], file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".tiny-", dir=file.parent) as room:
        save_file(tensors, Path(room) / "weights")
        (Path(room) / "weights").rename(file)


def _trained(shape: Shape, vocabulary: Vocabulary, seed: int, say: Callable[[str], None]) -> dict[str, Floats]:
    if MISSING:
        raise ValueError(f"the tiny model is trained with {' and '.join(MISSING)}: run scripts/setup dev")
    import torch

    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    batches = _Batches(vocabulary, random)
    model = _model(shape)
    layers = {name: each for name, each in model.named_parameters() if each.ndim == 2 and "layers" in name}
    others = [each for name, each in model.named_parameters() if name not in layers]
    optimizers: list[Any] = [
        torch.optim.Muon(layers.values(), lr=_MATRICES, momentum=0.95, weight_decay=0.0),
        torch.optim.AdamW(others, lr=_OTHERS, betas=(0.9, 0.98), weight_decay=0.0),
    ]
    schedules = [torch.optim.lr_scheduler.LambdaLR(each, _rate) for each in optimizers]
    started = time.perf_counter()
    for step in range(_STEPS):
        ids, labels = batches.draw(1 + round(5 * min(1.0, step / (_GROWING * _STEPS))))
        states = model.model(input_ids=torch.from_numpy(ids)).last_hidden_state[:, :-1]
        wanted = torch.from_numpy(labels)[:, 1:]
        asked = wanted != _IGNORED
        logits = model.lm_head(states[asked])
        loss = torch.nn.functional.cross_entropy(logits, wanted[asked])
        model.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for each in (*optimizers, *schedules):
            each.step()
        if step % 50 == 49:
            right = float((logits.argmax(-1) == wanted[asked]).float().mean())
            seconds = time.perf_counter() - started
            say(f"step {step + 1} of {_STEPS}: loss {loss:.3f}, {right:.0%} of tokens right, {seconds:.0f} s")
    named = dict(model.named_parameters())
    return {each.name: named[each.name].detach().numpy().copy() for each in tensors(shape)}


def _rate(step: int) -> float:
    return min(1.0, (step + 1) / 30, (1 - step / _STEPS) / _FALLING + 0.01)


def _model(shape: Shape) -> Any:
    import transformers

    config = transformers.LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.ffn,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        rms_norm_eps=shape.epsilon,
        rope_theta=shape.theta,
        max_position_embeddings=shape.context,
        tie_word_embeddings=shape.tied,
        use_cache=False,
    )
    return transformers.LlamaForCausalLM(config)


class _Batches:
    """Questions and answers as token ids; only answers are learned."""

    def __init__(self, vocabulary: Vocabulary, random: np.random.Generator) -> None:
        self._tokenizer = vocabulary.tokenizer()
        self._pad = vocabulary.id(ENDOFTEXT)
        self._random = random

    def draw(self, most: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Ids and labels, [_BATCH, longest]; of questions with at most `most` words or pairs."""
        chosen = self._random.choice(len(TASKS), _BATCH, p=[0.3, 0.1, 0.6])
        drawn = [example(self._random, TASKS[each], most) for each in chosen]
        asked = [each.ids for each in self._tokenizer.encode_batch([each.prompt for each in drawn])]
        # With a space before it the first word is the token it was in the question.
        said = [each.ids for each in self._tokenizer.encode_batch([f" {each.answer}<|im_end|>" for each in drawn])]
        longest = max(len(one) + len(other) for one, other in zip(asked, said, strict=True))
        ids = np.full((_BATCH, longest), self._pad, np.int64)
        labels = np.full((_BATCH, longest), _IGNORED, np.int64)
        for row, (question, answer) in enumerate(zip(asked, said, strict=True)):
            whole = len(question) + len(answer)
            ids[row, :whole] = [*question, *answer]
            labels[row, len(question) : whole] = answer
        return ids, labels
