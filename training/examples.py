"""From passages and questions to rows of tokens: windows around the answer, and hard negatives of the same document."""

import math
import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tokenizers import Tokenizer

from server.models.engines.reader.nearness import words
from server.models.engines.reader.questions import Answer, Passage, Question

LONGEST_QUESTION = 40
CLS, SEP = 101, 102


@dataclass(frozen=True)
class Row:
    """`spans` are (start, end, weight) in tokens of `ids`, the end included; (0, 0, 1) where there is no answer."""

    ids: list[int]
    kinds: list[int]
    spans: list[tuple[int, int, float]]


@dataclass
class _Asked:
    question: Question
    at: int
    others: list[int] = field(default_factory=list)


class Examples:
    """An endless, seeded stream of rows; every pass over the questions draws new windows and negatives."""

    def __init__(self, passages: Sequence[Passage], tokenizer: Tokenizer, seed: int) -> None:
        self._passages = passages
        self._tokenizer = tokenizer
        self.random = random.Random(seed)
        self._encoded: dict[int, Any] = {}
        self._asked = [_Asked(q, at) for at, passage in enumerate(passages) for q in passage.questions]
        self._find_others()
        self._order: list[int] = []
        self.taken = 0

    def __len__(self) -> int:
        return len(self._asked)

    def state(self) -> Any:
        return self.random.getstate(), list(self._order), self.taken

    def restore(self, state: Any) -> None:
        generator, self._order, self.taken = state
        self.random.setstate(generator)

    def rows(self, longest: int, negatives: float) -> Iterator[Row]:
        """Rows whose windows have at most `longest` characters; `negatives` of them hold no answer."""
        while True:
            if not self._order:
                self._order = list(range(len(self._asked)))
                self.random.shuffle(self._order)
            asked = self._asked[self._order.pop()]
            self.taken += 1
            row = self._row(asked, longest, negatives)
            if row is not None:
                yield row

    def _row(self, asked: _Asked, longest: int, negatives: float) -> Row | None:
        answers = asked.question.answers
        at = asked.at
        if answers and self.random.random() < negatives:
            elsewhere = self._elsewhere(asked, longest)
            if elsewhere is None:
                return None
            at, low, high = elsewhere
            answers = []
        else:
            low, high = self._window(at, answers, longest)
        return row(self._tokenizer, self._spoken(asked.question.question), self.encoded(at), low, high, answers)

    def _spoken(self, question: str) -> str:
        """People also ask without a question mark."""
        return question.rstrip("? ") if self.random.random() < 0.15 else question

    def _window(self, at: int, answers: Sequence[Answer], longest: int) -> tuple[int, int]:
        text = self._passages[at].context
        if len(text) <= longest:
            return 0, len(text)
        answer = self.random.choice(answers) if answers else None
        first = answer.start if answer else self.random.randrange(len(text))
        last = min(len(text), first + (len(answer.text) if answer else 1))
        room = max(0, longest - (last - first))
        low = max(0, first - int(self.random.random() * room))
        if low:
            space = text.rfind(" ", 0, low + 1)
            low = space + 1 if space >= 0 and low - space < 40 else low
        return min(low, first), max(last, min(len(text), low + longest))

    def _elsewhere(self, asked: _Asked, longest: int) -> tuple[int, int, int] | None:
        """A window that does not hold the answer: of the same long passage, or of another passage of the document."""
        text = self._passages[asked.at].context
        told = [answer.text.lower() for answer in asked.question.answers]
        if len(text) > 3 * longest and self.random.random() < 0.7:
            for _ in range(4):
                low = text.rfind(" ", 0, self.random.randrange(len(text) - longest) + 1) + 1
                if not any(one in text[low : low + longest].lower() for one in told):
                    return asked.at, low, low + longest
        if not asked.others:
            return None
        # The nearer, the likelier; the first is drawn most often.
        place = min(int(self.random.expovariate(0.5)), len(asked.others) - 1)
        at = asked.others[place]
        return at, *self._window(at, [], longest)

    def encoded(self, at: int) -> Any:
        if at not in self._encoded:
            self._encoded[at] = self._tokenizer.encode(self._passages[at].context, add_special_tokens=False)
        return self._encoded[at]

    def _find_others(self) -> None:
        """For every question the nearest passages by rare words that do not hold its answer, of its document first."""
        bags = [frozenset(words(passage.context[:20_000])) for passage in self._passages]
        seen = Counter(word for bag in bags for word in bag)
        weight = {word: math.log(len(bags) / count) for word, count in seen.items()}
        titled: dict[tuple[str, str], list[int]] = defaultdict(list)
        holding: dict[str, list[int]] = defaultdict(list)
        for at, passage in enumerate(self._passages):
            if passage.title:
                titled[passage.source, passage.title].append(at)
            for word in bags[at]:
                holding[word].append(at)
        for asked in self._asked:
            bag = set(words(asked.question.question))
            passage = self._passages[asked.at]
            pool: set[int] | list[int] = titled.get((passage.source, passage.title), [])
            if len(pool) < 4:
                rare = sorted((word for word in bag if word in weight), key=lambda word: -weight[word])
                pool = {at for word in rare[:4] for at in holding[word][:300]} | set(pool)
            told = [answer.text.lower() for answer in asked.question.answers]

            def near(at: int, bag: set[str] = bag) -> float:
                return sum(weight[word] for word in bag & bags[at])

            ranked = sorted((at for at in pool if at != asked.at), key=lambda at: (-near(at), at))
            kept = (at for at in ranked if not any(one in self._passages[at].context.lower() for one in told))
            asked.others = [at for at, _ in zip(kept, range(6), strict=False)]


def row(
    tokenizer: Tokenizer, question: str, passage: Any, low: int, high: int, answers: Sequence[Answer]
) -> Row | None:
    """The row of a question and the characters `low` to `high` of an encoded passage; None where no answer fits."""
    asked = tokenizer.encode(question, add_special_tokens=False).ids[:LONGEST_QUESTION]
    offsets = passage.offsets
    inside = [place for place, (start, end) in enumerate(offsets) if start >= low and end <= high and end > start]
    if not inside:
        return None
    first, last = inside[0], inside[-1] + 1
    ids = [CLS, *asked, SEP, *passage.ids[first:last], SEP]
    before = len(asked) + 2
    kinds = [0] * before + [1] * (len(ids) - before)
    found: Counter[tuple[int, int]] = Counter()
    for answer in answers:
        place = _tokens(offsets, first, last, answer)
        if place is not None:
            found[place[0] - first + before, place[1] - first + before] += 1
    if answers and not found:
        return None
    total = sum(found.values())
    spans = [(start, end, count / total) for (start, end), count in found.items()] or [(0, 0, 1.0)]
    return Row(ids[:512], kinds[:512], spans) if len(ids) <= 512 else None


def _tokens(offsets: Any, first: int, last: int, answer: Answer) -> tuple[int, int] | None:
    begin, stop = answer.start, answer.start + len(answer.text)
    start = end = None
    for place in range(first, last):
        low, high = offsets[place]
        if start is None and high > begin:
            start = place
        if low < stop:
            end = place
        else:
            break
    if start is None or end is None or end < start or offsets[first][0] > begin or offsets[last - 1][1] < stop - 1:
        return None
    return start, end
