"""What the tiny model learns, and how well it does in an engine: copying, counting, answering from a line of context.

A question is a user's turn, an answer the assistant's:

    copy red fox sun                         ->  red fox sun
    continue three four                      ->  five six seven
    answer red fox, sun tree. sun?           ->  sun tree
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from server.models.engine import Delta, Engine, Failed, Generate, Sampling, is_last

# fmt: off
WORDS = [
    "red", "blue", "green", "gold", "pink", "gray", "fox", "dog", "cat", "owl", "bee", "ant", "sun", "moon", "star",
    "sky", "rain", "snow", "tree", "leaf", "root", "seed", "rock", "sand", "lake", "hill", "road", "door", "wall",
    "roof", "lamp", "book", "pen", "cup", "fork", "bowl", "salt", "milk", "bread", "rice",
]
NUMBERS = [
    "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen",
    "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
]
"""In a circle: after the last comes the first."""
# fmt: on
TASKS = ("copy", "continue", "answer")
_MOST_STEPS = 20_000


@dataclass(frozen=True)
class Example:
    """A question and its one right answer, both in plain words."""

    task: str
    question: str
    answer: str

    @property
    def prompt(self) -> str:
        """As the model's chat template renders it."""
        return f"<|im_start|>user\n{self.question}<|im_end|>\n<|im_start|>assistant\n"


def example(random: np.random.Generator, task: str, most: int = 6) -> Example:
    """A question of at most `most` words or pairs; there are far more of them than are ever trained on."""
    if task == "continue":
        start, told = int(random.integers(len(NUMBERS))), int(random.integers(2, 5))
        count = [NUMBERS[(start + at) % len(NUMBERS)] for at in range(told + 3)]
        return Example(task, f"continue {' '.join(count[:told])}", " ".join(count[told:]))
    size = int(random.integers(1, most + 1))
    words = [WORDS[at] for at in random.permutation(len(WORDS))[: 2 * size]]
    if task == "copy":
        return Example(task, f"copy {' '.join(words[:size])}", " ".join(words[:size]))
    pairs = dict(zip(words[:size], words[size:], strict=True))
    asked = words[int(random.integers(size))]
    told = ", ".join(f"{key} {value}" for key, value in pairs.items())
    return Example(task, f"answer {told}. {asked}?", f"{asked} {pairs[asked]}")


def examples(count: int, seed: int) -> Iterator[Example]:
    """Fresh ones, the tasks in turn. Training draws from seed 0."""
    random = np.random.default_rng(seed)
    for number in range(count):
        yield example(random, TASKS[number % len(TASKS)])


def accuracy(engine: Engine, count: int = 120, seed: int = 1) -> dict[str, float]:
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
