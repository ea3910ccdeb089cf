"""What the tiny model learns, and how well it does in an engine: copying, counting, answering from what it is given.

A question is a user's turn, an answer the assistant's:

    copy red fox sun                         ->  red fox sun
    continue three four                      ->  five six seven
    answer red fox, sun tree. sun?           ->  sun tree
    ground: answer sun?                      ->  sun tree

The last one finds its pairs in the system message, among words that mean nothing.
"""

import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from server.models.engine import Delta, Engine, Failed, Generate, Sampling, is_last

# fmt: off
KEYS = [
    "red", "blue", "green", "gold", "pink", "gray", "fox", "dog", "cat", "owl", "bee", "ant", "sun", "moon", "star",
    "sky", "rain", "snow", "fork", "bowl",
]
VALUES = [
    "tree", "leaf", "root", "seed", "rock", "sand", "lake", "hill", "road", "door", "wall", "roof", "lamp", "book",
    "pen", "cup", "salt", "milk", "bread", "rice",
]
WORDS = KEYS + VALUES
NUMBERS = [
    "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen",
    "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
]
"""In a circle: after the last comes the first."""
# fmt: on
TASKS = ("copy", "continue", "answer", "ground")
MOST = 8
"""Words to copy, and pairs to answer from, at most."""
_LONGER = 12
"""Words to copy in training."""
_NOISE, _LETTERS = 14, 6
"""Words without meaning on either side of the pairs, and letters of each, at most."""
_REPEATING = 0.7
_MOST_STEPS = 20_000


@dataclass(frozen=True)
class Example:
    """A question and its one right answer, both in plain words; `system` is the conversation's system message."""

    task: str
    question: str
    answer: str
    system: str = ""

    @property
    def prompt(self) -> str:
        """As the model's chat template renders it."""
        system = f"<|im_start|>system\n{self.system}<|im_end|>\n" if self.system else ""
        return f"{system}<|im_start|>user\n{self.question}<|im_end|>\n<|im_start|>assistant\n"


class Piece(NamedTuple):
    """Text of which every token is `learned`, or none is."""

    text: str
    learned: bool


def example(random: np.random.Generator, task: str, most: int = MOST) -> Example:
    """A question of at most `most` words or pairs; there are far more of them than are ever trained on."""
    if task == "continue":
        start, shown = int(random.integers(len(NUMBERS))), int(random.integers(2, 5))
        count = [NUMBERS[(start + at) % len(NUMBERS)] for at in range(shown + 3)]
        return Example(task, f"continue {' '.join(count[:shown])}", " ".join(count[shown:]))
    size = int(random.integers(1, most + 1))
    if task == "copy":
        words = " ".join(_some(random, WORDS, size))
        return Example(task, f"copy {words}", words)
    pairs = list(zip(_some(random, KEYS, size), _some(random, VALUES, size), strict=True))
    told = ", ".join(f"{key} {value}" for key, value in pairs)
    key, value = pairs[int(random.integers(size))]
    if task == "answer":
        return Example(task, f"answer {told}. {key}?", f"{key} {value}")
    return Example(task, f"answer {key}?", f"{key} {value}", f"{_noise(random)} {told}. {_noise(random)}")


def lesson(random: np.random.Generator, task: str) -> list[Piece]:
    """An example to train on, whose answer is learned.

    Most questions of the task `answer` tell their pairs twice, the second time in another order and without the one
    that is asked for. There every value is learned too, so that one question teaches looking up several times.
    """
    drawn = example(random, task, _LONGER if task == "copy" else MOST)
    before: list[Piece] = []
    prompt = drawn.prompt
    if task == "answer" and random.random() < _REPEATING:
        told, _, rest = prompt.rpartition(". ")
        pairs = told.partition("answer ")[2].split(", ")
        before.append(Piece(f"{told}.", False))
        for pair in _some(random, pairs, len(pairs)):
            key, value = pair.split(" ")
            if key != drawn.answer.split(" ")[0]:
                before += [Piece(f" {key}", False), Piece(f" {value}", True), Piece(",", False)]
        prompt = f" {rest}"
    # With a space before it the first word is the token it was in the question.
    return [*before, Piece(prompt, False), Piece(f" {drawn.answer}<|im_end|>", True)]


def _some(random: np.random.Generator, of: Sequence[str], count: int) -> list[str]:
    return [of[at] for at in random.permutation(len(of))[:count]]


def _noise(random: np.random.Generator) -> str:
    sizes = random.integers(1, _LETTERS + 1, int(random.integers(1, _NOISE + 1)))
    return " ".join("".join(random.choice(list(string.ascii_letters + string.digits), size)) for size in sizes)


def examples(count: int, seed: int) -> Iterator[Example]:
    """Fresh ones, the tasks in turn. Training draws from seed 0."""
    random = np.random.default_rng(seed)
    for number in range(count):
        yield example(random, TASKS[number % len(TASKS)])


def accuracy(engine: Engine, count: int = 160, seed: int = 1) -> dict[str, float]:
    """The share of right answers, 0 to 1, of each task and of `all`, taking the likeliest token throughout.

    `engine` is loaded and idle, and serves the tiny model. An answer is right where every word is.
    """
    asked = list(examples(count, seed))
    said = [""] * count
    for key, each in enumerate(asked):
        engine.submit(key, Generate(prompt=each.prompt, max_tokens=16, sampling=Sampling(temperature=0.0)))
    left = count
    for _ in range(_MOST_STEPS):
        for key, event in engine.step():
            assert not isinstance(event, Failed), event.message
            if isinstance(event, Delta):
                said[key] += event.text
            left -= is_last(event)
        if not left:
            break
    assert not left, "the engine never answered all questions"
    right = [text.strip() == each.answer for text, each in zip(said, asked, strict=True)]
    shares = {
        task: float(np.mean([good for good, each in zip(right, asked, strict=True) if each.task == task]))
        for task in TASKS
    }
    return {**shares, "all": float(np.mean(right))}
