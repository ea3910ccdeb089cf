"""How near a sentence is to a question: meaning, place and words in one number. Pure arithmetic over given vectors."""

import math
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_word = re.compile(r"\w+")
_SHORTEST_STEM = 4
_STOPPED = """
a an and are as at be by can did do does for from had has have how i in is it its me my of on or our should so
that the their them there these they this those to was we were what when where which who whom whose why will
with would you your
"""
_STOP = frozenset(_STOPPED.split())

# A grid over 300 questions of the reading set's training part is flat around these; `scripts/bench reader` shows what
# they give on its other part. They sum to 1, so that nearness stays within 0 and 1.
MEANING, WORDS, PASSAGE = 0.5, 0.3, 0.2


def words(text: str) -> list[str]:
    """The words that carry meaning, roughly stemmed, so that "costs" meets "cost"."""
    return [_stem(word) for word in _word.findall(text.lower()) if word not in _STOP]


def _stem(word: str) -> str:
    for ending in ("ing", "ies", "ed", "es", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= _SHORTEST_STEM:
            return word[: -len(ending)]
    return word


def overlaps(question: str, texts: Sequence[str]) -> NDArray[np.float64]:
    """For each text the share of the question's words it has, rare words counting more; 0 to 1."""
    asked = set(words(question))
    bags = [set(words(text)) for text in texts]
    seen = Counter(word for bag in bags for word in bag & asked)
    weight = {word: math.log(1 + len(texts) / (1 + seen[word])) for word in asked}
    whole = sum(weight.values())
    if not whole:
        return np.zeros(len(texts))
    return np.array([sum(weight[word] for word in bag & asked) / whole for bag in bags])


def nearness(
    question: NDArray[np.float32],
    sentences: NDArray[np.float32],
    shared: NDArray[np.float64],
    passage_scores: Sequence[float],
) -> NDArray[np.float64]:
    """One number a sentence, comparable between questions: `question` [d] and `sentences` [n, d] are unit vectors,
    `shared` [n] is what `overlaps` said, `passage_scores` [n] how near the passage of each is."""
    meaning: NDArray[np.float64] = np.maximum(0.0, sentences @ question).astype(np.float64)
    near: NDArray[np.float64] = MEANING * meaning + WORDS * shared + PASSAGE * np.asarray(passage_scores, np.float64)
    return near
