"""The training loop: time or examples as the budget, checkpoints to resume from, figures on dev along the way."""

import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from training.examples import Examples, Row
from training.model import LAYERS, Reader

RATE, LAYER_DECAY, HEAD_RATE, WEIGHT_DECAY = 3e-4, 0.9, 1e-3, 0.01
WARM_UP = 100
AVERAGE = 0.998
"""Weight of the past in the moving average of the weights, which is what is judged and shipped."""
SHARE_TOKENS = 450
SHARES = 4
"""A step is four shares of about 450 tokens, worked off by the threads as they come free."""
_POOL = 1024
_MASKED = -1e4


@dataclass
class Budget:
    """What a run may take; progress is the larger share used of the two."""

    seconds: float | None
    examples: int | None

    def progress(self, seconds: float, examples: int) -> float:
        by_time = seconds / self.seconds if self.seconds else 0.0
        return max(by_time, examples / self.examples if self.examples else 0.0)


@dataclass
class State:
    step: int = 0
    examples: int = 0
    seconds: float = 0.0
    loss: float = 0.0


class Training:
    """A model, its optimizer and the moving average of its weights, stepped over a stream of rows."""

    def __init__(self, model: Reader, threads: int) -> None:
        self.model = model
        self.state = State()
        self._parameters = list(model.parameters())
        self._optimizer = torch.optim.AdamW(_groups(model), weight_decay=WEIGHT_DECAY, fused=True)
        self._average = [parameter.detach().clone() for parameter in self._parameters]
        self._threads = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))

    def step(self, shares: Sequence[Sequence[Row]], progress: float) -> None:
        state = self.state
        count = sum(map(len, shares))
        self.model.train()
        for group in self._optimizer.param_groups:
            group["lr"] = group["peak"] * min(1.0, (state.step + 1) / WARM_UP) * max(0.005, 1 - progress)
        found = list(self._threads.map(lambda share: self._share(share, count), shares))
        for place, parameter in enumerate(self._parameters):
            parameter.grad = found[0][1][place]
            for _, gradients in found[1:]:
                parameter.grad += gradients[place]
        torch.nn.utils.clip_grad_norm_(self._parameters, 1.0)
        self._optimizer.step()
        state.step += 1
        state.examples += count
        keep = min(AVERAGE, (1 + state.step) / (10 + state.step))
        torch._foreach_lerp_(self._average, [each.detach() for each in self._parameters], 1 - keep)
        loss = sum(one for one, _ in found)
        state.loss = loss if state.step == 1 else 0.98 * state.loss + 0.02 * loss

    def _share(self, rows: Sequence[Row], count: int) -> tuple[float, tuple[Tensor, ...]]:
        ids, kinds, mask = padded(rows)
        logits = self.model(ids, kinds, mask) + ((1 - mask) * _MASKED)[..., None]
        told = F.log_softmax(logits, 1)
        target = torch.zeros_like(told)
        for place, row in enumerate(rows):
            for start, end, weight in row.spans:
                target[place, start, 0] += weight
                target[place, end, 1] += weight
        loss = -(told * target).sum() / (2 * count)
        return loss.item(), torch.autograd.grad(loss, self._parameters)

    def averaged(self) -> "_Swapped":
        """With the average in the model's place."""
        return _Swapped(self._parameters, self._average)

    def save(self, file: Path, rest: Any) -> None:
        kept = {
            "model": self.model.state_dict(), "optimizer": self._optimizer.state_dict(), "average": self._average,
            "state": vars(self.state), "torch": torch.get_rng_state(), "rest": rest,
        }  # fmt: skip
        torch.save(kept, file.with_suffix(".part"))
        file.with_suffix(".part").replace(file)

    def load(self, file: Path) -> Any:
        kept = torch.load(file, weights_only=False)
        self.model.load_state_dict(kept["model"])
        self._optimizer.load_state_dict(kept["optimizer"])
        for mine, theirs in zip(self._average, kept["average"], strict=True):
            mine.copy_(theirs)
        self.state = State(**kept["state"])
        torch.set_rng_state(kept["torch"])
        return kept["rest"]


class _Swapped:
    def __init__(self, one: Sequence[Tensor], other: Sequence[Tensor]) -> None:
        self._pairs = list(zip(one, other, strict=True))

    def __enter__(self) -> None:
        self._swap()

    def __exit__(self, *_: object) -> None:
        self._swap()

    def _swap(self) -> None:
        with torch.no_grad():
            for one, other in self._pairs:
                kept = one.clone()
                one.copy_(other)
                other.copy_(kept)


def _groups(model: Reader) -> list[dict[str, Any]]:
    """The upper layers learn faster: they hold what is specific to the task."""
    groups = [{"params": list(model.span.parameters()), "peak": HEAD_RATE}]
    for place, layer in enumerate(model.layers):
        groups.append({"params": list(layer.parameters()), "peak": RATE * LAYER_DECAY ** (LAYERS - 1 - place)})
    return groups


def padded(rows: Sequence[Row]) -> tuple[Tensor, Tensor, Tensor]:
    longest = max(len(row.ids) for row in rows)
    ids = torch.tensor([row.ids + [0] * (longest - len(row.ids)) for row in rows])
    kinds = torch.tensor([row.kinds + [0] * (longest - len(row.kinds)) for row in rows])
    mask = torch.tensor([[1.0] * len(row.ids) + [0.0] * (longest - len(row.ids)) for row in rows])
    return ids, kinds, mask


class Shares:
    """Draws rows and hands out steps of equally long ones, so that little padding is computed."""

    def __init__(self, real: Examples, made: Examples | None, seed: int) -> None:
        self._real = real
        self._made = made
        self._random = random.Random(seed)
        self._left: list[list[Row]] = []

    def state(self) -> Any:
        return self._real.state(), self._random.getstate(), self._made and self._made.state()

    def restore(self, state: Any) -> None:
        self._real.restore(state[0])
        self._random.setstate(state[1])
        if self._made and state[2]:
            self._made.restore(state[2])

    def next(self, longest: int, negatives: float, made: float) -> list[list[Row]]:
        """The next step's shares; `made` is the part of made-up rows."""
        if len(self._left) < SHARES:
            real = self._real.rows(longest, negatives)
            other = self._made.rows(longest, negatives) if self._made else None
            rows = [next(other if other and self._random.random() < made else real) for _ in range(_POOL)]
            rows.sort(key=lambda row: len(row.ids))
            self._left += _cut(rows)
            self._random.shuffle(self._left)
        step, self._left = self._left[:SHARES], self._left[SHARES:]
        return step


def _cut(rows: Sequence[Row]) -> list[list[Row]]:
    shares: list[list[Row]] = [[]]
    for row in rows:
        if len(row.ids) * (len(shares[-1]) + 1) > SHARE_TOKENS and shares[-1]:
            shares.append([])
        shares[-1].append(row)
    return shares
