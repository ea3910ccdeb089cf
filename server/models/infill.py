"""Filling in the middle: the tokens a model has for it, and the order in which it was taught to read them.

Bavarian et al., Efficient Training of Language Models to Fill in the Middle (arXiv 2207.14255): prefix, suffix, then
the middle, which is what the model writes. Mistral's code models read the suffix first and have no token for the
middle: they go on from the prefix. Knows no engine; the engines find the tokens in their vocabularies.
"""

from collections.abc import Callable, Mapping, Sequence

import msgspec

_FAMILIES = (
    *(("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),),  # Qwen, CodeGemma
    *(("<fim_prefix>", "<fim_suffix>", "<fim_middle>"), ("<fim-prefix>", "<fim-suffix>", "<fim-middle>")),  # StarCoder
    *(("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"),),  # DeepSeek
    *(("▁<PRE>", "▁<SUF>", "▁<MID>"), ("<PRE>", "<SUF>", "<MID>")),  # Code Llama
    *(("<|code_prefix|>", "<|code_suffix|>", "<|code_middle|>"),),  # GLM
    *(("[PREFIX]", "[SUFFIX]", None),),  # Mistral
)
_REPOSITORY = ("<|repo_name|>", "<|fim_repo|>", "<reponame>", "<repo_name>")
_FILE = ("<|file_sep|>", "<file_sep>")
_ENDS = ("<|fim_pad|>", "<fim_pad>", "▁<EOT>", "<EOT>")

_GGUF = {
    "prefix": ("fim_pre_token_id", "prefix_token_id"),
    "suffix": ("fim_suf_token_id", "suffix_token_id"),
    "middle": ("fim_mid_token_id", "middle_token_id"),
    "repository": ("fim_rep_token_id",),
    "file": ("fim_sep_token_id",),
    "pad": ("fim_pad_token_id",),
}
"""What a GGUF file calls them, under tokenizer.ggml; the second names are older."""


class Infill(msgspec.Struct, frozen=True):
    """Token ids. Without `middle` the suffix comes first. `file` is put before a file's name, `repository` before the
    repository's. An answer ends with any of `ends`.
    """

    prefix: int
    suffix: int
    middle: int | None
    repository: int | None = None
    file: int | None = None
    ends: list[int] = []

    def prompt(
        self, begin: Sequence[int], before: Sequence[int], after: Sequence[int], extra: Sequence[int] = ()
    ) -> list[int]:
        """What the model goes on from, to write what stands between the ids `before` and `after`.

        `begin` is what every prompt of the model begins with; `extra`, other files, comes ahead of the prefix.
        """
        if self.middle is None:
            return [*begin, *extra, self.suffix, *after, self.prefix, *before]
        return [*begin, *extra, self.prefix, *before, self.suffix, *after, self.middle]


def infill_tokens(token: Callable[[str], int | None], told: Mapping[str, object] | None = None) -> Infill | None:
    """The tokens of the first family that the vocabulary has whole; None where it has none.

    `token` gives the id of a token's text. `told` are the fields of a GGUF file, by their names under tokenizer.ggml:
    they come first.
    """
    named = {name: _told(told or {}, keys) for name, keys in _GGUF.items()}
    repository = _first(named["repository"], token, _REPOSITORY)
    file = _first(named["file"], token, _FILE)
    ends = {named["pad"], *map(token, _ENDS), repository, file} - {None}
    rest = (repository, file, sorted(each for each in ends if each is not None))
    prefix, suffix, middle = named["prefix"], named["suffix"], named["middle"]
    if prefix is not None and suffix is not None and middle is not None:
        return Infill(prefix, suffix, middle, *rest)
    for family in _FAMILIES:
        prefix, suffix = token(family[0]), token(family[1])
        middle = None if family[2] is None else token(family[2])
        if prefix is not None and suffix is not None and (middle is not None or family[2] is None):
            return Infill(prefix, suffix, middle, *rest)
    return None


def _told(told: Mapping[str, object], keys: Sequence[str]) -> int | None:
    return next((value for key in keys if isinstance(value := told.get(key), int)), None)


def _first(named: int | None, token: Callable[[str], int | None], texts: Sequence[str]) -> int | None:
    if named is not None:
        return named
    return next((id_ for text in texts if (id_ := token(text)) is not None), None)
