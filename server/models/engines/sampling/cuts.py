"""How byte-level tokenizers cut a text before merging, by the name GGUF files give it (tokenizer.ggml.pre).

The expressions are those of the families' published tokenizer.json files; llama.cpp names which model has which.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from tokenizers import Regex, pre_tokenizers

_SHORT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_GPT_2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASED = rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+%s|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*%s"
_SLASHED = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"


@dataclass(frozen=True)
class Cut:
    """Expressions applied one after another, each to the pieces of the one before.

    `whole` says that a word that is a token is taken as it is, merged or not.
    """

    patterns: tuple[str, ...]
    whole: bool = False

    def pre_tokenizer(self) -> pre_tokenizers.PreTokenizer:
        splits = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in self.patterns]
        return pre_tokenizers.Sequence([*splits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def _named() -> Iterator[tuple[str, Cut]]:
    gpt_2 = Cut((_GPT_2,))
    for name in ("default", "gpt-2", "phi-2", "jina-es", "jina-de", "jina-v2-code", "roberta-bpe", "mpt", "olmo"):
        yield name, gpt_2
    for name in ("exaone4", "a.x-4.0", "mellum", "trillion", "granite-docling"):
        yield name, gpt_2
    digits = Cut((r"\p{N}", _GPT_2))
    for name in ("starcoder", "refact", "command-r", "smollm", "codeshell", "exaone", "minerva-7b"):
        yield name, digits
    threes = rf"{_SHORT}|{_WORDS}|\p{{N}}{{1,3}}|{_REST}"
    for name in ("llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"):
        yield name, Cut((threes,), whole=True)
    for name in ("dbrx", "smaug-bpe", "chatglm-bpe", "glm4"):
        yield name, Cut((threes,))
    ones = Cut((rf"{_SHORT}|{_WORDS}|\p{{N}}|{_REST}",))
    for name in ("qwen2", "deepseek-r1-qwen", "kormo", "megrez", "stablelm2", "hunyuan", "solar-open"):
        yield name, ones
    marks = r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+"
    yield "qwen35", Cut((rf"{_SHORT}|{marks}|\p{{N}}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",))
    yield "seed-coder", Cut((rf"{_SHORT}|{_WORDS}|\p{{N}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+",))
    yield "tekken", Cut((rf"{_CASED % ('', '')}|\p{{N}}|{_SLASHED}",), whole=True)
    for name in ("gpt-4o", "llama4"):
        yield name, Cut((rf"{_CASED % ((_SHORT + '?',) * 2)}|\p{{N}}{{1,3}}|{_SLASHED}",))
    han = "[一-龥\u3040-ゟ゠-ヿ]+"
    punctuated = (
        r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
        r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    for name in ("deepseek-v3", "hunyuan-dense"):
        yield name, Cut((r"\p{N}{1,3}", han, punctuated))
    yield "deepseek-coder", Cut((r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-\ud7ff]+", r"\p{N}"))


CUTS = dict(_named())
