"""Guesses of what comes next, from the text so far or from a small model; knows nothing of sampling or requests.

A guess is checked by the model itself: positions after it are computed in the same pass, and each token is drawn from
the model's own logits as if nothing had been guessed. A guess that turns out to be the token drawn saves a pass, one
that does not is thrown away with all after it. That is speculative sampling (arXiv 2211.17192) where the draft's
distribution is a single point: accept with the model's probability of that point, else draw from the rest. So answers
are those of the model alone, at any temperature and with the same seed, and grammars, penalties and log-probabilities
act on them as always.

Token for token that holds in float32. In bfloat16, and with keys kept in 8 bits, several positions in one pass are
rounded otherwise than one by one, as prompts read in other pieces are: where two tokens are as likely as each other,
the other one may come.
"""

from collections.abc import Sequence as Listed
from typing import Protocol

from server.models.engines.paged.pages import Held, Pages
from server.models.engines.paged.runtime import Decoder
from server.models.engines.paged.span import Span

_LONGEST, _SHORTEST = 3, 2
"""Tokens that must have come before in the same order; single ones come too often to say anything."""
_PIECE = 256
"""The most tokens of a prompt a draft model reads in one step: no one waits long for it."""


class Draft(Protocol):
    """What guesses; `most` is how many tokens at a time."""

    most: int

    def guess(self, asked: Listed[tuple[Held, int]]) -> list[list[int]]:
        """For each of the sequences, which wait for their next token, at most so many tokens that may follow."""
        ...

    def forget(self, sequence: Held) -> None:
        """The sequence is over. Idempotent."""
        ...


class NgramDraft:
    """Guesses that what followed the last tokens earlier in the same text follows them again (prompt lookup)."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._indices: dict[Held, _Index] = {}

    def guess(self, asked: Listed[tuple[Held, int]]) -> list[list[int]]:
        return [self._indices.setdefault(sequence, _Index(sequence.tokens)).after(most) for sequence, most in asked]

    def forget(self, sequence: Held) -> None:
        self._indices.pop(sequence, None)


class _Index:
    """Where each short run of tokens ended last, of a text that grows."""

    def __init__(self, tokens: list[int]) -> None:
        self._tokens = tokens
        self._ends: dict[tuple[int, ...], int] = {}
        self._known = _SHORTEST

    def after(self, most: int) -> list[int]:
        tokens, ends = self._tokens, self._ends
        # The run at the very end is left out: it is the one looked for.
        for end in range(self._known, len(tokens)):
            for size in range(_SHORTEST, min(_LONGEST, end) + 1):
                ends[tuple(tokens[end - size : end])] = end
        self._known = max(self._known, len(tokens))
        for size in range(_LONGEST, _SHORTEST - 1, -1):
            found = ends.get(tuple(tokens[-size:])) if size <= len(tokens) else None
            if found is not None:
                return self._from(found, most)
        return []

    def _from(self, start: int, most: int) -> list[int]:
        guesses = self._tokens[start : start + most]
        while len(guesses) < most:  # a repetition that reaches the end goes on with itself
            guesses.append(guesses[len(guesses) - (len(self._tokens) - start)])
        return guesses


class ModelDraft:
    """A small model with pages of its own; always takes its likeliest token, whatever the answer's sampling."""

    def __init__(self, decoder: Decoder, *, context: int, most: int, vocabulary: int) -> None:
        """`context` is the longest text it can read; ids from `vocabulary` on are only in its own padding."""
        self.most = most
        self._decoder = decoder
        self._context = context
        self._vocabulary = vocabulary
        self._pages = Pages(decoder.pages, decoder.page_size)
        self._states: dict[Held, _State] = {}

    def guess(self, asked: Listed[tuple[Held, int]]) -> list[list[int]]:
        guesses: list[list[int]] = [[] for _ in asked]
        wanted: list[tuple[_State, int, list[int]]] = []
        left = _PIECE
        spans: list[Span] = []
        read: list[tuple[_State, int]] = []
        for (sequence, most), found in zip(asked, guesses, strict=True):
            state = self._ready(sequence, most, asked)
            if state is None or not left:
                continue
            count = min(state.held.due, left)
            left -= count
            held = state.held
            ends = count == held.due
            tokens = held.tokens[held.past : held.past + count]
            # More are of a prompt, or were computed once before.
            written = count <= self.most + 1
            spans.append(Span(tokens, held.past, held.pages, int(ends), written))
            read.append((state, held.past + count))
            if ends:
                wanted.append((state, most, found))
        if not spans:
            return guesses
        logits = self._decoder.compute(spans)
        for state, past in read:
            # Room for guesses stays reserved until the next call: only what is certain is said to be computed.
            self._pages.advance(state.held, past)
        self._go_on(wanted, logits[:, : self._vocabulary].argmax(-1).tolist())
        return guesses

    def _go_on(self, wanted: list[tuple["_State", int, list[int]]], likeliest: list[int]) -> None:
        """One guess of each sequence after another, each computed from those before."""
        while True:
            for (_, _, found), token in zip(wanted, likeliest, strict=True):
                found.append(token)
            wanted = [each for each in wanted if len(each[2]) < each[1] and self._roomy(each[0], each[2])]
            if not wanted:
                return
            spans = []
            for state, _, found in wanted:
                state.fed = found[:]
                spans.append(Span(found[-1:], state.held.past + len(found) - 1, state.held.pages, 1, written=True))
            likeliest = self._decoder.compute(spans)[:, : self._vocabulary].argmax(-1).tolist()

    def _roomy(self, state: "_State", found: list[int]) -> bool:
        return self._pages.reserve(state.held, state.held.past + len(found))

    def _ready(self, sequence: Held, most: int, asked: Listed[tuple[Held, int]]) -> "_State | None":
        """The draft's own state of a sequence, with pages for all its tokens; None where it cannot guess for it."""
        if most < 1 or len(sequence.tokens) + most > self._context:
            return None
        state = self._states.get(sequence)
        if state is None:
            # The tokens are the sequence's own list: it grows by itself.
            state = self._states[sequence] = _State(Held(sequence.tokens))
            self._pages.restore(state.held)
        state.settle()
        self._pages.advance(state.held, state.held.past)
        if not self._pages.reserve(state.held, len(sequence.tokens)):
            current = {each for each, _ in asked}
            for other in [each for each in self._states if each not in current]:
                self.forget(other)
            if not self._pages.reserve(state.held, len(sequence.tokens)):
                return None
        return state

    def forget(self, sequence: Held) -> None:
        if (state := self._states.pop(sequence, None)) is not None:
            self._pages.release(state.held)

    @property
    def free(self) -> int:
        """Pages no sequence holds."""
        return self._pages.free


class _State:
    """What a draft model has computed of a sequence; `fed` are guesses that stand in its pages after that."""

    def __init__(self, held: Held) -> None:
        self.held = held
        self.fed: list[int] = []

    def settle(self) -> None:
        """Keep those guesses that became tokens of the sequence; one token always stays due."""
        held = self.held
        for guess in self.fed:
            if held.due <= 1 or held.tokens[held.past] != guess:
                break
            held.past += 1
        self.fed = []
