"""Which tokens of which sequences the next step computes: decoding first, prompts in pieces, pages given and taken.

Decides and keeps books; computes nothing, and knows nothing of text or sampling.
"""

from collections import deque
from collections.abc import Sequence as Listed
from dataclasses import dataclass, field

from server.models.engines.paged.pages import Held, Pages

_LEAST = 16
"""Tokens of prompts in every step, however many sequences decode: a new request is never starved by old ones."""
_MORE = 4
"""A piece that ends a prompt may be longer by such a part of itself."""


@dataclass(eq=False)
class Sequence(Held):
    """One answer's tokens: the prompt's, then those chosen."""

    key: int = 0
    prompt: int = 0
    """How many of the tokens are the prompt's."""
    piece: int | None = None
    """The most tokens of it in one step, where its logits would take too much memory else."""
    reuses: bool = True
    """Whether it may begin with pages that others computed."""
    cached: int | None = None
    """Tokens that were found computed when it was first admitted; None before."""
    arrived: int = 0


@dataclass(eq=False)
class Work:
    """`count` tokens of a sequence from its `past` on, and `guesses` of what follows them."""

    sequence: Sequence
    count: int
    guesses: list[int] = field(default_factory=list)

    @property
    def ends(self) -> bool:
        """Whether a token can be chosen afterwards."""
        return self.count == self.sequence.due


class Schedule:
    """Sequences waiting and running over one pool of pages. At most `parallel` run at once.

    Sequences that decode are in every step. Of what is left, a half goes to the shortest prompt under way, so that a
    short one need not wait for a long one, and the rest to the oldest, so that a long one always comes to its end.
    Where pages run out the latest arrival gives up its own and is computed again later.
    """

    def __init__(self, pages: Pages, parallel: int) -> None:
        self._pages = pages
        self._parallel = parallel
        self._waiting: deque[Sequence] = deque()
        self._running: list[Sequence] = []
        self._arrivals = 0
        self._exceeding: list[Sequence] = []
        self._refused: tuple[Sequence, int] | None = None
        """Who found too few pages, and how many there were: looked for again when there are more."""
        self.preempted = 0

    def __len__(self) -> int:
        return len(self._waiting) + len(self._running)

    def add(self, sequence: Sequence) -> None:
        self._arrivals += 1
        sequence.arrived = self._arrivals
        fits = self._pages.needed(len(sequence.tokens)) <= self._pages.count
        (self._waiting if fits else self._exceeding).append(sequence)

    def remove(self, sequence: Sequence) -> None:
        """Forget it, at once; its full pages stay findable until they are needed. An unknown one is no fault."""
        if sequence in self._running:
            self._running.remove(sequence)
        elif sequence in self._waiting:
            self._waiting.remove(sequence)
        self._pages.release(sequence)

    @property
    def decoding(self) -> bool:
        """Whether some sequence waits for nothing but its next token."""
        return any(each.due == 1 for each in self._running)

    def exceeding(self) -> list[Sequence]:
        """Sequences that turned out longer than all pages since the last call; they are removed."""
        found, self._exceeding = self._exceeding, []
        return found

    # ---- one step -----------------------------------------------------------------------------------------------

    def plan(self, budget: int) -> list[Work]:
        """About `budget` tokens of work. Every sequence that decodes is in it, whatever the budget."""
        while self._waiting and len(self._running) < self._parallel and self._admit(self._waiting[0]):
            self._running.append(self._waiting.popleft())
        works = [Work(each, 1) for each in list(self._running) if each.due == 1 and self._fits(each, 1)]
        left = max(budget - len(works), _LEAST)
        for sequence, share in self._shares(left):
            # A little more costs less than a step of its own, which reads all weights once more.
            count = share if share - left <= left // _MORE else left
            if count and self._fits(sequence, count):
                works.append(Work(sequence, count))
                left = max(left - count, 0)
        # One planned above may have given its pages to an earlier one since.
        running = set(self._running)
        return [work for work in works if work.sequence in running]

    def extend(self, work: Work, guesses: Listed[int]) -> None:
        """Let `guesses` be computed with a work that decodes, as far as pages are free: a guess takes no one's."""
        sequence = work.sequence
        computed = sequence.past + work.count
        room = (len(sequence.pages) + self._pages.free) * self._pages.size - computed
        work.guesses = list(guesses[: max(room, 0)])
        self._pages.reserve(sequence, computed + len(work.guesses))

    def done(self, work: Work, accepted: int = 0) -> None:
        """A work was computed, and `accepted` of its guesses are tokens of the sequence by now."""
        self._pages.advance(work.sequence, work.sequence.past + work.count + accepted)

    def _shares(self, left: int) -> list[tuple[Sequence, int]]:
        """Prompts under way in the order they are served, and the most tokens each may have of `left`."""
        prompts = [each for each in self._running if each.due > 1]
        if not prompts:
            return []
        oldest = min(prompts, key=lambda each: each.arrived)
        rest = sorted((each for each in prompts if each is not oldest), key=lambda each: each.due)
        most = {each.key: min(each.due, each.piece or each.due) for each in prompts}
        if not rest or oldest.due <= rest[0].due:
            return [(each, most[each.key]) for each in (oldest, *rest)]
        shortest = rest[0]
        half = min(most[shortest.key], left // 2)
        return [(shortest, half), *((each, most[each.key]) for each in (oldest, *rest[1:]))]

    def _admit(self, sequence: Sequence) -> bool:
        """Find what is computed already, and see that the rest of its tokens has pages. False where it has to wait."""
        # The prompts under way have a claim on their pages, and whoever runs may want one more at any step: else the
        # newcomer would be admitted only to be sent away again.
        claimed = sum(self._lacks(each) + 1 for each in self._running)
        room = self._pages.free - claimed
        if self._running and self._refused is not None and self._refused[0] is sequence and room <= self._refused[1]:
            return False
        if sequence.reuses:
            self._pages.restore(sequence)
        if self._running and self._lacks(sequence) + claimed > self._pages.free:
            self._pages.release(sequence)
            self._refused = (sequence, room)
            return False
        if sequence.cached is None:
            sequence.cached = sequence.past
        return True

    def _lacks(self, sequence: Sequence) -> int:
        return max(self._pages.needed(len(sequence.tokens)) - len(sequence.pages), 0)

    def _fits(self, sequence: Sequence, count: int) -> bool:
        """Give `sequence` the pages for `count` more tokens, taking them from later arrivals where none are free.

        False where it had to give its own.
        """
        if sequence not in self._running:
            return False
        while not self._pages.reserve(sequence, sequence.past + count):
            latest = max(self._running, key=lambda each: each.arrived)
            if latest is sequence and len(self._running) == 1:
                self.remove(sequence)
                self._exceeding.append(sequence)
                return False
            self._preempt(latest)
            if latest is sequence:
                return False
        return True

    def _preempt(self, sequence: Sequence) -> None:
        """Back to the head of the queue, to be computed again: its pages are needed by an earlier one."""
        self.preempted += 1
        self._running.remove(sequence)
        self._pages.release(sequence)
        self._waiting.appendleft(sequence)
