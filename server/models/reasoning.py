"""Splits a streamed answer into what the model thought and what it says.

Reasoning models put `<think> ... </think>` before their answer (DeepSeek R1, Qwen 3 and those after them). Some chat
templates write the opening tag into the prompt, so the answer begins inside.
"""

from server.models.stop import overlap

OPENING = "<think>"
CLOSING = "</think>"


def opens_reasoning(prompt: str) -> bool:
    """Whether a rendered prompt ends inside the opening tag, so that the answer begins with reasoning."""
    return prompt.rstrip().endswith(OPENING)


class ReasoningSplitter:
    """Fed the pieces of one answer, says what of each is reasoning and what content.

    Only an answer's very beginning may open a block: a later tag is something the model writes about. Newlines after
    either tag are layout and dropped; everything else passes unchanged. `open` says the prompt ended in the opening
    tag; one that the model repeats all the same is dropped.
    """

    def __init__(self, *, open: bool = False) -> None:  # noqa: A002  (the word of the matter)
        self._open = open
        self._state = "start"
        self._held = ""
        self._fresh = False

    def feed(self, text: str) -> tuple[str, str]:
        """(reasoning, content) that may be sent now; the beginning of a tag is held back."""
        self._held += text
        if self._state == "start" and not self._begin():
            return "", ""
        reasoning = self._reasoning() if self._state == "reasoning" else ""
        content = self._take(self._held) if self._state == "content" else ""
        return reasoning, content

    def flush(self) -> tuple[str, str]:
        """(reasoning, content) that was held back, once the answer has ended."""
        inside = self._state == "reasoning" or (self._state == "start" and self._open)
        held = self._take(self._held)
        return (held, "") if inside else ("", held)

    def _begin(self) -> bool:
        """Leave the state "start" if it is clear how the answer begins."""
        seen = self._held.lstrip()
        if seen.startswith(OPENING):
            self._held = seen[len(OPENING) :]
            self._state, self._fresh = "reasoning", True
        elif OPENING.startswith(seen):
            return False
        else:
            self._state, self._fresh = ("reasoning", True) if self._open else ("content", False)
        return True

    def _reasoning(self) -> str:
        end = self._held.find(CLOSING)
        if end < 0:
            return self._take(self._held[: len(self._held) - overlap(self._held, CLOSING)])
        reasoning = self._take(self._held[:end])
        self._held = self._held[len(CLOSING) :]
        self._state, self._fresh = "content", True
        return reasoning

    def _take(self, text: str) -> str:
        """Remove `text` from the front of what is held; without its newlines where a tag stood just before."""
        self._held = self._held[len(text) :]
        if self._fresh:
            text = text.lstrip("\r\n")
            self._fresh = not text
        return text
