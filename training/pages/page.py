"""A page under construction, and the random things it is made of."""

import random

from server.models.engines.reader.questions import Answer, Passage, Question
from training import vocabulary as say


class Page:
    """A text under construction, and the questions whose answers stand in it."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._length = 0
        self._questions: list[Question] = []

    def add(self, text: str) -> "Page":
        self._parts.append(text)
        self._length += len(text)
        return self

    def fact(self, answer: str, *questions: str) -> "Page":
        """Adds `answer`, which answers each of `questions`."""
        self._questions += [Question(question, [Answer(answer, self._length)]) for question in questions if question]
        return self.add(answer)

    def unanswered(self, *questions: str) -> "Page":
        self._questions += [Question(question, []) for question in questions]
        return self

    def joined(self, other: "Page") -> "Page":
        """This page with `other` after it; what neither holds is still unanswered by both, and only that is kept."""
        self.add("\n")
        told = {question.question for question in self._questions + other._questions if question.answers}
        mine = [question for question in self._questions if question.answers or question.question not in told]
        moved = [
            Question(question.question, [Answer(each.text, each.start + self._length) for each in question.answers])
            for question in other._questions
        ]
        twice = {question.question for question in mine} & {question.question for question in moved}
        self._questions = [question for question in mine + moved if question.question not in twice]
        return self.add("".join(other._parts))

    def passage(self, title: str) -> Passage:
        return Passage("".join(self._parts), self._questions, title, "made")


class Draw(random.Random):
    """Random things of the vocabulary."""

    def person(self) -> str:
        return f"{self.choice(say.FIRST)} {self.choice(say.LAST)}"

    def people(self, count: int) -> list[str]:
        firsts, lasts = self.sample(say.FIRST, count), self.sample(say.LAST, count)
        return [f"{first} {last}" for first, last in zip(firsts, lasts, strict=True)]

    def word(self) -> str:
        return "".join(self.sample(say.SYLLABLES, self.choice((2, 2, 3))))

    def company(self) -> str:
        return f"{self.word().capitalize()} {self.choice(say.COMPANY_KINDS)}"

    def model(self) -> str:
        return f"{self.choice('ABCDEGHKLMPRSTVX')}{self.choice('ABCDEGHKLMPRSTVX')}-{self.randrange(10, 990)}"

    def money(self, low: int = 2, high: int = 400) -> str:
        amount = self.randrange(low, high) + self.choice((0, 0, 0.5, 0.9, 0.95, 0.99, 0.25))
        text = f"{amount:.2f}" if self.random() < 0.8 else f"{amount:.0f}"
        return self.choice((f"€ {text}", f"{text} €", f"${text}", f"£{text}", f"{text} EUR", f"CHF {text}"))

    def clock(self) -> str:
        return f"{self.randrange(0, 24):02}:{self.choice((0, 5, 10, 15, 20, 30, 40, 45, 50)):02}"

    def date(self) -> str:
        day, month, year = self.randrange(1, 29), self.choice(say.MONTHS), self.randrange(1998, 2031)
        number = say.MONTHS.index(month) + 1
        return self.choice(
            (f"{day} {month} {year}", f"{month} {day}, {year}", f"{year}-{number:02}-{day:02}", f"{day} {month}")
        )

    def phone(self) -> str:
        return (
            f"+{self.randrange(30, 99)} {self.randrange(100, 999)} {self.randrange(1000, 9999)}{self.randrange(0, 99)}"
        )

    def address(self) -> str:
        return f"{self.randrange(1, 180)} {self.choice(say.STREETS)}, {self.choice(say.CITIES)}"

    def maybe(self, *questions: str, most: int = 1) -> list[str]:
        return self.sample(questions, min(most, len(questions)))

    def of(self, *choices: str) -> str:
        return self.choice(choices)
