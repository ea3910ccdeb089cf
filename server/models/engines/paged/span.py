"""A sequence's part in a step of a decoder."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Span:
    """`tokens` at positions from `past`, in `pages`.

    `wanted` of its last positions give logits: 0 none, 1 the last token's, n the last n, in their order. `written`
    says that the tokens are of an answer and not of a prompt: those come few at a time.
    """

    tokens: list[int]
    past: int
    pages: list[int]
    wanted: int
    written: bool = False
