"""A small llama that learned something: trained with torch on the tasks of `tiny_task`, the same weights every time.

It begins with what looking up needs and training finds last: heads that look at the token before (induction heads are
made of these, transformer-circuits.pub/2022/in-context-learning-and-induction-heads). From there two minutes of one
processor thread are enough. Optimiser: Muon, kellerjordan.github.io/posts/muon.
"""

import hashlib
import math
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from server.models import made
from server.models.made.shapes import Shape, Tensor, tensors
from server.models.made.vocabulary import ENDOFTEXT, Vocabulary, learned
from server.models.made.weights import Floats
from tests.making.oracle import MISSING
from tests.making.tiny_task import NUMBERS, TASKS, WORDS, Piece, example, lesson

_WIDTH, _LAYERS, _HEADS, _KV_HEADS, _FFN = 256, 2, 4, 2, 320
_THETA = 1000.0
_BATCH, _GROUNDED = 32, 16
"""Questions of a step; every third step asks those with a system message, which are longer."""
_STEPS, _RISING, _FALLING = 450, 20, 350
"""Steps at most; over the first ones the rates rise, over the last ones they fall to nothing."""
_MATRICES, _OTHERS = 0.02, 3e-3
"""Learning rates: Muon's for the layers' matrices, Adam's for the rest."""
_LEARNED, _ASKED = 0.98, 400
"""Training ends once every task has this share of right answers, of so many questions in all."""
_IGNORED = -100
_ORDINARY = ("copy", "continue", "answer")
_ODDS = (0.5, 0.15, 0.35)


class Tiny:
    """Shape, vocabulary and weights. Trained once: `cache` is the folder that keeps the weights for every format.

    Raises ValueError where they are to be trained and torch is not installed.
    """

    def __init__(self, seed: int, cache: Path, say: Callable[[str], None]) -> None:
        # Bytes in front, so that any text can be read; every word of the tasks, with its space, is one token.
        spoken = [f" {word}" for word in (*WORDS, *NUMBERS)] + [*_ORDINARY, "system", "user", "assistant"]
        self.vocabulary = learned(spoken, 4096, "gpt-2")
        size = -(-len(self.vocabulary.tokens) // 32) * 32
        width = _WIDTH // _HEADS
        self.shape = Shape(
            "llama", _WIDTH, _LAYERS, _HEADS, _KV_HEADS, width, _FFN, size, tied=False, theta=_THETA, context=1024
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
    here = Path(__file__)
    for file in (here, here.with_name("tiny_task.py"), Path(made.__file__).with_name("vocabulary.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:8]


def _keep(weights: dict[str, Floats], file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".tiny-", dir=file.parent) as room:
        save_file(weights, Path(room) / "weights")
        (Path(room) / "weights").rename(file)


# ---- training -------------------------------------------------------------------------------------------------------


def _trained(shape: Shape, vocabulary: Vocabulary, seed: int, say: Callable[[str], None]) -> dict[str, Floats]:
    if MISSING:
        raise ValueError(f"the tiny model is trained with {' and '.join(MISSING)}: run scripts/setup dev")
    import torch

    random = np.random.default_rng(seed)
    batches = _Batches(vocabulary)
    held_out = _held_out(seed)
    started = time.perf_counter()
    with _one_thread():
        model = _model(shape, seed)
        optimizers = _optimizers(model)
        for step in range(_STEPS):
            rate = min((step + 1) / _RISING, (_STEPS - step) / _FALLING, 1.0)
            ids, labels = batches.of(_lessons(random, step))
            loss = _step(model, optimizers, rate, torch.from_numpy(ids), torch.from_numpy(labels))
            if step % 25 == 24:
                right = {task: _right(model, *batches.of(asked)) for task, asked in held_out.items()}
                told = ", ".join(f"{task} {share:.0%}" for task, share in right.items())
                say(f"step {step + 1}: loss {loss:.3f}, right: {told}; {time.perf_counter() - started:.0f} s")
                if min(right.values()) >= _LEARNED:
                    break
        named = dict(model.named_parameters())
        return {each.name: named[each.name].detach().numpy().copy() for each in tensors(shape)}


def _lessons(random: np.random.Generator, step: int) -> list[list[Piece]]:
    if step % 3 == 2:
        return [lesson(random, "ground") for _ in range(_GROUNDED)]
    return [lesson(random, _ORDINARY[each]) for each in random.choice(len(_ORDINARY), _BATCH, p=_ODDS)]


def _held_out(seed: int) -> dict[str, list[list[Piece]]]:
    """Questions that neither training nor `accuracy` draws."""
    random = np.random.default_rng([seed, 2])
    asked: dict[str, list[list[Piece]]] = {}
    for task in TASKS:
        drawn = [example(random, task) for _ in range(_ASKED // len(TASKS))]
        asked[task] = [[Piece(each.prompt, False), Piece(f" {each.answer}<|im_end|>", True)] for each in drawn]
    return asked


def _step(model: Any, optimizers: Iterable[Any], rate: float, ids: Any, labels: Any) -> float:
    """One step at `rate` of the full learning rates. Only what has a label is run through the head."""
    import torch

    states = model.model(input_ids=ids).last_hidden_state[:, :-1]
    wanted = labels[:, 1:]
    asked = wanted != _IGNORED
    loss = torch.nn.functional.cross_entropy(model.lm_head(states[asked]), wanted[asked])
    model.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate * group["full"]
        optimizer.step()
    return float(loss.detach())


def _right(model: Any, ids: NDArray[np.int64], labels: NDArray[np.int64]) -> float:
    """The share of rows whose every label is the likeliest token."""
    import torch

    with torch.no_grad():
        likeliest = model(input_ids=torch.from_numpy(ids)).logits[:, :-1].argmax(-1).numpy()
    wanted = labels[:, 1:]
    return float(np.mean(np.all((likeliest == wanted) | (wanted == _IGNORED), axis=1)))


def _optimizers(model: Any) -> list[Any]:
    import torch

    layers = {name: each for name, each in model.named_parameters() if each.ndim == 2 and "layers" in name}
    others = [each for name, each in model.named_parameters() if name not in layers]
    made: list[Any] = [
        torch.optim.Muon(layers.values(), lr=_MATRICES, momentum=0.95, weight_decay=0.0),
        torch.optim.AdamW(others, lr=_OTHERS, betas=(0.9, 0.98), weight_decay=0.0),
    ]
    for optimizer in made:
        for group in optimizer.param_groups:
            group["full"] = group["lr"]
    return made


@contextmanager
def _one_thread() -> Iterator[None]:
    """torch on one thread: sums of several would round as their number has it, and wait where a processor is busy."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Batches:
    """Lessons as token ids."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._tokenizer = vocabulary.tokenizer()
        self._pad = vocabulary.id(ENDOFTEXT)

    def of(self, lessons: list[list[Piece]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Ids and labels, [lessons, longest]; where nothing is learned the label is _IGNORED."""
        rows = [self._row(pieces) for pieces in lessons]
        longest = max(len(row) for row in rows)
        ids = np.full((len(rows), longest), self._pad, np.int64)
        labels = np.full((len(rows), longest), _IGNORED, np.int64)
        for number, row in enumerate(rows):
            for at, (token, is_learned) in enumerate(row):
                ids[number, at] = token
                if is_learned:
                    labels[number, at] = token
        return ids, labels

    def _row(self, pieces: list[Piece]) -> list[tuple[int, bool]]:
        encoded = self._tokenizer.encode_batch([piece.text for piece in pieces])
        return [(token, piece.learned) for piece, each in zip(pieces, encoded, strict=True) for token in each.ids]


# ---- where training starts ------------------------------------------------------------------------------------------

_EMBEDDED, _CONSTANT = 0.5, 2.0
"""Size of embedded values; and the value of their first dimension, the same for every token."""
_SHARP, _FREQUENCIES = 1.5, 6
"""How strongly a head looks at the token before, by how many of rope's frequencies, fastest first."""


def _model(shape: Shape, seed: int) -> Any:
    import torch
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
    torch.manual_seed(seed)
    model = transformers.LlamaForCausalLM(config)
    with torch.no_grad():
        for name, each in model.named_parameters():
            if "layers" in name and each.ndim == 2:
                adds = "o_proj" in name or "down_proj" in name
                each.normal_(0.0, 1 / math.sqrt(each.shape[1] * (2 * shape.layers if adds else 1)))
        model.model.embed_tokens.weight.normal_(0.0, _EMBEDDED)
        model.model.embed_tokens.weight[:, 0] = _CONSTANT
        attention = model.model.layers[0].self_attn
        _look_back(shape, attention.q_proj.weight, attention.k_proj.weight)
    return model


def _look_back(shape: Shape, queries: Any, keys: Any) -> None:
    """Turn half of the first layer's heads to the token before.

    Rope turns a query at m and a key at n apart by (m - n) times the frequency of each of its planes. A query that is
    the same for every token, and a key that is turned on by one step, agree best at m - n = 1.
    """
    half, share = shape.head_dim // 2, shape.heads // shape.kv_heads
    for head in range(shape.heads // 2):
        for plane in range(_FREQUENCIES):
            frequency = shape.theta ** (-plane / half)
            queries[head * shape.head_dim + plane, 0] = _SHARP
            queries[head * shape.head_dim + plane + half, 0] = 0.0
            key = head // share * shape.head_dim + plane
            keys[key, 0] = _SHARP * math.cos(frequency)
            keys[key + half, 0] = _SHARP * math.sin(frequency)
