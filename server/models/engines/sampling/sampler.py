"""Logits to tokens: what the OpenAI parameters mean, for all sequences of a step; knows nothing of pages or text.

A vocabulary has 150,000 tokens and a row of logits 600 KB, so a pass over it that allocates, sorts or partitions is
what costs. `Likeliest` finds the first few of a row with one pass over it, and the working rows are allocated once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from server.errors import HearthError, ServiceError
from server.models.engine import Sampling
from server.models.engines.sampling.constraint import Constraint

Row = NDArray[np.float32]
Rows = NDArray[np.float32]
"""[rows, vocabulary]; a Row is one of them."""
Ids = NDArray[np.int64]

_DEPTH = 64
"""Tokens of a column of the vocabulary: columns are reduced first, in one fast pass, and then looked into."""
_COLDEST = 1e-5
"""Below this temperature the likeliest token is taken: what else could be drawn is lost in float32."""
_NUCLEUS = 256
"""A nucleus is nearly always smaller; only where it is not, the whole vocabulary is sorted."""


@dataclass(frozen=True)
class Choice:
    """A chosen token. Log-probabilities are of the raw logits; `top` is (token, logprob), likeliest first."""

    token: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


class Chooser:
    """How one answer's tokens are chosen; keeps its random numbers, its counts and its place in a grammar.

    One random number is drawn for each token, so that an answer depends on its seed and its logits alone.
    """

    def __init__(
        self, sampling: Sampling, prompt: list[int], constraint: Constraint | None, ends: frozenset[int]
    ) -> None:
        self.sampling = sampling
        self.constraint = constraint
        seed = None if sampling.seed is None else sampling.seed % 2**64  # numpy takes no negative ones
        self._random = np.random.Generator(np.random.PCG64(seed))
        self.penalised = bool(
            sampling.presence_penalty or sampling.frequency_penalty or sampling.repetition_penalty != 1.0
        )
        self._said = _Counts()
        self._seen = _Counts()
        if sampling.repetition_penalty != 1.0:
            self._seen.fill(np.unique(np.asarray(prompt, np.int64)))
        self._bias = (
            np.fromiter(sampling.logit_bias.keys(), np.int64),
            np.fromiter(sampling.logit_bias.values(), np.float32),
        )
        self.ends = ends.union(sampling.stop_token_ids)
        """The tokens before which the answer ends."""
        self._never = np.fromiter(sorted(ends) if sampling.ignore_eos else (), np.int64)
        self._early = np.fromiter(sorted(self.ends) if sampling.min_tokens else (), np.int64)
        self._taken = 0
        self.adjusts = bool(
            len(self._bias[0]) or len(self._never) or len(self._early) or constraint is not None or self.penalised
        )
        """Whether logits are changed before a token is chosen."""
        self.greedy = sampling.temperature < _COLDEST
        self.plain = not self.adjusts and self.greedy and sampling.top_logprobs is None
        """Whether the likeliest token is all that is asked for."""

    @property
    def ended(self) -> bool:
        """Whether the grammar lets nothing follow."""
        return self.constraint is not None and self.constraint.ended

    def adjust(self, scores: Row) -> None:
        """Change logits, in place, by all that comes before temperature. Raises HearthError, and fails closed."""
        tokens, biases = self._bias
        scores[tokens] += biases
        forbidden = self._early if self._taken < self.sampling.min_tokens else self._never
        if len(forbidden):
            self._forbid(forbidden, scores)
        elif self.constraint is not None:
            scores[~self.constraint.allowed()] = -np.inf
        if self.penalised:
            self._penalise(scores)

    def take(self, token: int) -> None:
        """Note a token that was chosen. Raises HearthError where the grammar cannot take it."""
        self._taken += 1
        if self.penalised:
            self._said.add(token)
            self._seen.add(token)
        if self.constraint is not None:
            self.constraint.take(token)

    def draw(self) -> float:
        """A number of [0, 1), the next of this answer's."""
        return float(self._random.random())

    def _forbid(self, forbidden: Ids, scores: Row) -> None:
        if self.constraint is None:
            scores[forbidden] = -np.inf
            return
        allowed = self.constraint.allowed().copy()
        ends = forbidden[allowed[forbidden]]
        allowed[ends] = False
        if not allowed.any():  # a finished document has no more to say
            allowed[ends] = True
        scores[~allowed] = -np.inf

    def _penalise(self, scores: Row) -> None:
        sampling = self.sampling
        if sampling.repetition_penalty != 1.0:
            seen = self._seen.tokens
            there = scores[seen]
            factor = np.float32(sampling.repetition_penalty)
            scores[seen] = np.where(there > 0, there / factor, there * factor)
        presence, frequency = np.float32(sampling.presence_penalty), np.float32(sampling.frequency_penalty)
        scores[self._said.tokens] -= presence + frequency * self._said.times


class _Counts:
    """How often each token came, as arrays that grow."""

    def __init__(self) -> None:
        self._place: dict[int, int] = {}
        self._tokens = np.zeros(64, np.int64)
        self._times = np.zeros(64, np.float32)

    @property
    def tokens(self) -> Ids:
        return self._tokens[: len(self._place)]

    @property
    def times(self) -> Row:
        return self._times[: len(self._place)]

    def fill(self, tokens: Ids) -> None:
        """Begin with distinct tokens, each once."""
        self._place = {token: place for place, token in enumerate(tokens.tolist())}
        self._tokens = np.concatenate([tokens, np.zeros(64, np.int64)])
        self._times = np.concatenate([np.ones(len(tokens), np.float32), np.zeros(64, np.float32)])

    def add(self, token: int) -> None:
        place = self._place.setdefault(token, len(self._place))
        if place == len(self._tokens):
            self._tokens = np.concatenate([self._tokens, np.zeros(place, np.int64)])
            self._times = np.concatenate([self._times, np.zeros(place, np.float32)])
        self._tokens[place] = token
        self._times[place] += 1


class Sampler:
    """Chooses for the rows of a step. `size` is the vocabulary's; its working rows make it one thread's."""

    def __init__(self, size: int) -> None:
        self._scores = np.empty(size, np.float32)
        self._work = np.empty(size, np.float32)

    def choose(self, logits: Rows, asked: Sequence[tuple[int, Chooser]]) -> list[Choice | HearthError]:
        """The next token of each answer from its row of `logits`, f32 [rows, vocabulary], which are left as they are.

        What is wrong with one answer stands in its place of the list and touches no other.
        """
        if all(chooser.plain for _, chooser in asked):
            found = self._likeliest(logits, [row for row, _ in asked])
            return [self._noted(logits, row, token) for (row, _), token in zip(asked, found, strict=True)]
        chosen: list[Choice | HearthError] = []
        for row, chooser in asked:
            try:
                chosen.append(self._chosen(logits[row], chooser))
            except HearthError as error:
                chosen.append(error)
        return chosen

    def _likeliest(self, logits: Rows, rows: list[int]) -> list[int]:
        first, count = rows[0], len(rows)
        if rows == list(range(first, first + count)):
            likeliest: list[int] = logits[first : first + count].argmax(-1).tolist()
            return likeliest
        return [int(logits[row].argmax()) for row in rows]

    def _noted(self, logits: Rows, row: int, token: int) -> Choice | HearthError:
        return Choice(token) if np.isfinite(logits[row, token]) else _no_number()

    def _chosen(self, logits: Row, chooser: Chooser) -> Choice:
        scores = logits
        if chooser.adjusts:
            scores = self._scores
            np.copyto(scores, logits)
            chooser.adjust(scores)
        sampling = chooser.sampling
        token = int(scores.argmax()) if chooser.greedy else self._drawn(scores, sampling, chooser.draw())
        # Not a number, or nothing allowed: whatever argmax and the search make of that, it is no answer.
        if not np.isfinite(scores[token]):
            raise _no_number()
        chooser.take(token)
        wanted = sampling.top_logprobs
        return Choice(token) if wanted is None else self.told(logits, token, wanted)

    def told(self, logits: Row, token: int, wanted: int) -> Choice:
        """A given token with its log-probability and the `wanted` likeliest ones."""
        highest = logits.max()
        np.subtract(logits, highest, out=self._work)
        np.exp(self._work, out=self._work)
        whole = float(highest) + float(np.log(self._work.sum()))
        best = likeliest(logits, wanted)
        top = tuple(zip(best.tolist(), (logits[best].astype(np.float64) - whole).tolist(), strict=True))
        return Choice(token, float(logits[token]) - whole, top)

    def _drawn(self, scores: Row, sampling: Sampling, number: float) -> int:
        """The token at `number`, 0 to 1, of the distribution that is left after temperature, top_k, top_p, min_p."""
        highest = scores.max()
        if not np.isfinite(highest):
            raise _no_number()
        tokens = None
        if 0 < sampling.top_k < len(scores):
            tokens = likeliest(scores, sampling.top_k)
            scores = scores[tokens]
        weights = self._work[: len(scores)]
        np.subtract(scores, highest, out=weights)
        weights /= np.float32(sampling.temperature)
        np.exp(weights, out=weights)
        if sampling.top_p < 1:
            _keep_nucleus(weights, sampling.top_p)
        if sampling.min_p > 0:
            weights[weights < weights.max() * np.float32(sampling.min_p)] = 0
        at = _at(weights, number)
        return at if tokens is None else int(tokens[at])


def likeliest(scores: Row, wanted: int) -> Ids:
    """The `wanted` tokens with the highest scores, highest first; of equal ones the lower id first.

    The vocabulary is laid in columns, and the highest of each column bounds them: as many columns as are wanted have a
    token at least as high as the `wanted`-th highest of these, so nothing below that can be among them.
    """
    wanted = min(wanted, len(scores))
    if not wanted:
        return np.zeros(0, np.int64)
    columns = len(scores) // _DEPTH
    if wanted < columns:
        highest = scores[: columns * _DEPTH].reshape(_DEPTH, columns).max(0)
        bound = np.partition(highest, columns - wanted)[columns - wanted]
        found = np.flatnonzero(scores >= bound)
    else:
        found = np.arange(len(scores))
    return found[np.argsort(-scores[found], kind="stable")][:wanted]


def _keep_nucleus(weights: Row, top_p: float) -> None:
    """Leave, in place, the fewest likeliest whose share is at least `top_p` (arXiv 1904.09751); the rest weigh 0."""
    wanted = np.float64(top_p) * weights.sum(dtype=np.float64)
    best = likeliest(weights, _NUCLEUS)
    sums = np.cumsum(weights[best], dtype=np.float64)
    if sums[-1] >= wanted or len(best) == len(weights):
        kept = best[: int(np.searchsorted(sums, wanted)) + 1]
    else:
        ordered = np.sort(weights)[::-1]  # values alone: numpy sorts them many times faster than their places
        count = min(int(np.searchsorted(np.cumsum(ordered.astype(np.float64)), wanted)) + 1, len(ordered))
        least = ordered[count - 1]
        above = np.flatnonzero(weights > least)
        kept = np.concatenate([above, np.flatnonzero(weights == least)[: count - len(above)]])
    values = weights[kept]
    weights[:] = 0
    weights[kept] = values


def _at(weights: Row, number: float) -> int:
    """The index where the running sum of `weights` passes `number` times their whole; never one that weighs nothing.

    The sum runs down one column after another, so that only the column it ends in is summed one by one.
    """
    columns = len(weights) // _DEPTH
    laid = weights[: columns * _DEPTH].reshape(_DEPTH, columns)
    rest = weights[columns * _DEPTH :]
    sums = np.cumsum(np.append(laid.sum(0), rest.sum()), dtype=np.float64)
    wanted = number * sums[-1]
    # Side "right" passes over what weighs nothing, which a draw of exactly its edge would take.
    column = min(int(np.searchsorted(sums, wanted, side="right")), columns)
    before = sums[column - 1] if column else 0.0
    part = laid[:, column] if column < columns else rest
    at = int(np.searchsorted(np.cumsum(part, dtype=np.float64), wanted - before, side="right"))
    if at == len(part) or not part[at]:
        # The two sums were rounded differently at an edge: the last one of the column that weighs something.
        weighing = np.flatnonzero(part)
        if not len(weighing):
            return int(weights.argmax())
        at = int(weighing[-1])
    return at * columns + column if column < columns else columns * _DEPTH + at


def _no_number() -> HearthError:
    return ServiceError("The model computed no usable probabilities for the next token.")
