"""Pages of the key and value cache: counted references, and full pages found again by what they hold.

Knows tokens by number and nothing of requests, order or time.
"""

from collections import OrderedDict
from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np


@dataclass(eq=False)
class Held:
    """Tokens and where they are kept: the first `past` of them are computed and in `pages`. Tokens are only added."""

    tokens: list[int]
    pages: list[int] = field(default_factory=list)
    past: int = 0
    published: int = 0
    """How many of its pages are full and can be found by others."""
    chain: list[bytes] = field(default_factory=list)
    """The hashes of its full pages, as far as they were needed; they outlive the pages, for tokens do not change."""

    @property
    def due(self) -> int:
        """How many tokens are to be computed before the next one can be chosen."""
        return len(self.tokens) - self.past


class Pages:
    """`count` pages of `size` tokens. A free page keeps its content until it is taken, oldest first, so that a prefix
    may be found later.

    A page's hash covers its tokens and the hash of the page before it, so one hash stands for the whole prefix.
    """

    def __init__(self, count: int, size: int) -> None:
        self.count = count
        self.size = size
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(count))
        self._references = [0] * count
        self._by_hash: dict[bytes, int] = {}
        self._hash_of: dict[int, bytes] = {}

    @property
    def free(self) -> int:
        return len(self._free)

    def needed(self, tokens: int) -> int:
        """Pages that hold so many tokens."""
        return -(-tokens // self.size)

    # ---- what a sequence holds ----------------------------------------------------------------------------------

    def restore(self, held: Held) -> None:
        """Give `held`, which has no pages, those of its prefix that are computed already.

        Its last token is left out: it is always computed, because its logits are wanted.
        """
        for page in range((len(held.tokens) - 1) // self.size):
            found = self._find(self._chained(held, page))
            if found is None:
                break
            held.pages.append(found)
        held.past = len(held.pages) * self.size
        held.published = len(held.pages)

    def reserve(self, held: Held, tokens: int) -> bool:
        """Give `held` the pages for its first `tokens` tokens. False, and nothing taken, where too few are free."""
        missing = self.needed(tokens) - len(held.pages)
        if missing > self.free:
            return False
        for _ in range(missing):
            held.pages.append(self._take())
        return True

    def advance(self, held: Held, past: int) -> None:
        """Say that the first `past` tokens are computed: full pages can be found, spare ones are given back."""
        held.past = past
        for page in range(held.published, past // self.size):
            self._publish(held.pages[page], self._chained(held, page))
        held.published = past // self.size
        # What stands in a page beyond `past` was guessed wrongly; it is never found, and written over.
        while len(held.pages) > self.needed(past + 1):
            self._drop(held.pages.pop())

    def release(self, held: Held) -> None:
        """Take all pages back; full ones stay findable until they are needed."""
        # Last pages first, so that the beginning of a prefix outlives its end.
        while held.pages:
            self._drop(held.pages.pop())
        held.past = held.published = 0

    def _chained(self, held: Held, page: int) -> bytes:
        while len(held.chain) <= page:
            at = len(held.chain)
            before = held.chain[-1] if at else b""
            tokens = np.asarray(held.tokens[at * self.size : (at + 1) * self.size], np.int32)
            held.chain.append(blake2b(before + tokens.tobytes(), digest_size=16).digest())
        return held.chain[page]

    # ---- single pages -------------------------------------------------------------------------------------------

    def _take(self) -> int:
        """A page for new content. Only while `free`."""
        page, _ = self._free.popitem(last=False)
        if (known := self._hash_of.pop(page, None)) is not None:
            del self._by_hash[known]
        self._references[page] = 1
        return page

    def _find(self, content: bytes) -> int | None:
        """The page with that hash, with one reference more; None where it is gone."""
        page = self._by_hash.get(content)
        if page is None:
            return None
        if self._references[page] == 0:
            del self._free[page]
        self._references[page] += 1
        return page

    def _publish(self, page: int, content: bytes) -> None:
        """Of two pages with the same content the first is kept findable."""
        if content not in self._by_hash:
            self._by_hash[content] = page
            self._hash_of[page] = content

    def _drop(self, page: int) -> None:
        """Give one reference back."""
        self._references[page] -= 1
        if self._references[page] == 0:
            self._free[page] = None
