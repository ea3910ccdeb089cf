"""What a yardstick is: documents, and questions whose document is known."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Yardstick:
    """`texts` by document; each of `questions` is a text and the document that answers it.

    `translations` are the questions as a model reads that knows both languages.
    """

    name: str
    texts: Mapping[str, str]
    questions: Sequence[tuple[str, str]]
    translations: Mapping[str, str] = field(default_factory=dict)

    def evenly(self, most: int) -> "Yardstick":
        """With at most `most` of its questions, always the same."""
        step = max(1, -(-len(self.questions) // most))
        return replace(self, questions=self.questions[::step])
