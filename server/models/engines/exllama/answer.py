"""One request under way on a GPU engine: its tokens, and how each next one is chosen; knows neither package.

The packages' own samplers are passed over: Hearth's one chooses from the raw logits, so that a seed, a grammar, a bias
or a log-probability means the same here as on every other engine. What the generators get wrong at the end of an
answer (a tail that is held back, a limit that guesses cut short, end tokens of which one alone is kept) cannot happen,
because what ends an answer is decided here.
"""

import threading
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from server.errors import HearthError
from server.models.engines.exllama.vision import Placed
from server.models.engines.sampling.admission import Admission
from server.models.engines.sampling.sampler import Choice, Row, Rows, Sampler


class Samplers:
    """A sampler for each thread: one has working rows of its own. `size` is the vocabulary's."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._threads = threading.local()

    def here(self) -> Sampler:
        found: Sampler | None = getattr(self._threads, "sampler", None)
        if found is None:
            found = self._threads.sampler = Sampler(self._size)
        return found


@dataclass(eq=False)
class Answer:
    """`tokens` are the prompt's, then those chosen. `chosen` is what nobody was told of yet.

    `reason` is why the answer is over, `fault` what is wrong with it; None for both while it goes on.
    """

    key: int
    admission: Admission
    samplers: Samplers
    adapter: str | None = None
    tokens: list[int] = field(default_factory=list)
    chosen: deque[Choice] = field(default_factory=deque)
    reason: str | None = None
    fault: HearthError | None = None
    cached: int | None = None
    """How many of the prompt's tokens had been computed before; None until it was read."""
    begun: bool = False
    read: list[Choice] = field(default_factory=list)
    """The prompt's tokens from the second on, with their log-probabilities, as far as they were scored."""
    job: Any = None
    """The generator's own object, while it has one."""
    pictures: list[Placed] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.tokens = list(self.admission.tokens)

    @property
    def seen(self) -> bool:
        """Whether a tower has looked at all its pictures, so that it can start."""
        return all(placed.embedded is not None for placed in self.pictures)

    @property
    def ids(self) -> list[int]:
        """`tokens` as a package reads them: those of pictures are its own, which stand for what its tower made."""
        ids = list(self.tokens) if self.pictures else self.tokens
        for placed in self.pictures:
            assert placed.embedded is not None
            ids[placed.at : placed.at + placed.tokens] = placed.embedded.ids
        return ids

    @property
    def embeddings(self) -> list[Any]:
        """The package's own objects, of its pictures, each once."""
        found = [placed.embedded.embedding for placed in self.pictures if placed.embedded is not None]
        return list({id(each): each for each in found}.values())

    @property
    def over(self) -> bool:
        return self.reason is not None or self.fault is not None

    @property
    def written(self) -> int:
        return len(self.tokens) - len(self.admission.tokens)

    @property
    def left(self) -> int:
        """How many more tokens it may have."""
        return self.admission.limit - self.written

    @property
    def scores(self) -> bool:
        """Whether some token of the prompt is still to be scored."""
        return self.admission.scored is not None and len(self.read) + 1 < len(self.admission.tokens)

    def score(self, rows: Rows) -> None:
        """Logits f32 [tokens, vocabulary] of the next of the prompt's tokens: each row tells of the token after it."""
        for row in rows:
            token = self.admission.tokens[len(self.read) + 1]
            self.read.append(self.samplers.here().told(row, token, self.admission.scored or 0))

    def choose(self, row: Row) -> int:
        """The next token, from logits f32 [vocabulary]; any thread, one at a time. Raises nothing."""
        if self.over:  # a generator that guesses ahead may go on asking
            return self.tokens[-1]
        if self.left <= 0:
            self.reason = "length"
            return self.tokens[-1]
        chooser = self.admission.chooser
        [choice] = self.samplers.here().choose(row[None], [(0, chooser)])
        if isinstance(choice, HearthError):
            self.fault = choice
            return self.tokens[-1]
        if choice.token in chooser.ends:
            self.reason = "stop"
            return choice.token
        self.tokens.append(choice.token)
        self.chosen.append(choice)
        if chooser.ended:
            self.reason = "stop"
        elif self.left <= 0:
            self.reason = "length"
        return choice.token
