"""Rules that vision towers of both packages share: into what grid a picture falls, and which tokens stand for it."""

_STRETCHED = 200
"""Times that one side of a picture may be as long as the other (transformers' smart_resize)."""


def enclosed(cells: int, image: int, opening: int, closing: int) -> list[int]:
    """The tokens of a picture of so many cells, between one that opens it and one that closes it."""
    return [opening, *([image] * cells), closing]


def lined(rows: int, columns: int, image: int, line_end: int, closing: int) -> list[int]:
    """Pixtral's (arXiv 2410.07073): a token ends each line of a picture, and another one the last line."""
    return [*([*([image] * columns), line_end] * rows)[:-1], closing]


def unlined(ids: list[int]) -> list[int]:
    """Of Pixtral's tokens as both packages make them: without the end of the last line, which the model never saw
    before the end of a picture."""
    return [*ids[:-2], ids[-1]]


def grown(size: tuple[int, int], least: int) -> tuple[int, int]:
    """`size` with no side shorter than `least` pixels, in the same shape: both packages refuse what is smaller.

    Raises ValueError where one side is too long for the other.
    """
    shorter, longer = sorted(size)
    if longer > _STRETCHED * shorter:
        raise ValueError(f"one side is more than {_STRETCHED} times as long as the other")
    if shorter >= least:
        return size
    width, height = (max(least, round(side * least / shorter)) for side in size)
    return width, height
