"""The types of GGUF tensors that weights are quantised to, and how many bits a weight really takes in each.

A block of weights shares a scale, so a type of 4 bits takes 4.5: block sizes are those of ggml-common.h. The head,
which chooses the next token, keeps more bits than the rest, as llama.cpp's quantiser has it (src/llama-quant.cpp).
"""

from dataclasses import dataclass

from gguf import GGMLQuantizationType, LlamaFileType

from server.models.header import BLOCKS
from server.models.quantization.fault import QuantizeError

_LADDER = {
    "q2_k": LlamaFileType.MOSTLY_Q2_K,
    "q3_k": LlamaFileType.MOSTLY_Q3_K_S,
    "q4_0": LlamaFileType.MOSTLY_Q4_0,
    "q4_1": LlamaFileType.MOSTLY_Q4_1,
    "q5_k": LlamaFileType.MOSTLY_Q5_K_S,
    "q6_k": LlamaFileType.MOSTLY_Q6_K,
    "q8_0": LlamaFileType.MOSTLY_Q8_0,
}
"""What `--bits` chooses from, by rising size."""
_BESIDE = {
    "q4_k": LlamaFileType.MOSTLY_Q4_K_S,
    "iq4_nl": LlamaFileType.MOSTLY_IQ4_NL,
    "iq4_xs": LlamaFileType.MOSTLY_IQ4_XS,
    "q5_0": LlamaFileType.MOSTLY_Q5_0,
    "q5_1": LlamaFileType.MOSTLY_Q5_1,
}
_FILE_TYPES = _LADDER | _BESIDE
TYPES = tuple(_FILE_TYPES)
_HEAD_BITS = 6.0
FLOATS = (GGMLQuantizationType.F32, GGMLQuantizationType.F16, GGMLQuantizationType.BF16)
_OF_32 = {
    GGMLQuantizationType.Q2_K: GGMLQuantizationType.IQ4_NL,
    GGMLQuantizationType.Q3_K: GGMLQuantizationType.IQ4_NL,
    GGMLQuantizationType.IQ4_XS: GGMLQuantizationType.IQ4_NL,
    GGMLQuantizationType.Q4_K: GGMLQuantizationType.Q5_0,
    GGMLQuantizationType.Q5_K: GGMLQuantizationType.Q5_1,
    GGMLQuantizationType.Q6_K: GGMLQuantizationType.Q8_0,
}
"""What stands for a type with blocks of 256 where rows are no whole number of these."""


@dataclass(frozen=True)
class Kind:
    """One type by its name, such as q4_0."""

    name: str

    @property
    def ggml(self) -> GGMLQuantizationType:
        return GGMLQuantizationType[self.name.upper()]

    @property
    def file_type(self) -> LlamaFileType:
        return _FILE_TYPES[self.name]

    @property
    def bits(self) -> float:
        """What a weight takes, its share of the scales included."""
        return bits(self.ggml)


def bits(kind: GGMLQuantizationType) -> float:
    each, octets = BLOCKS[kind]
    return 8 * octets / each


def for_bits(asked: float) -> Kind:
    """The type that takes the fewest bits of those with at least as many as `asked`. Raises QuantizeError."""
    for name in _LADDER:
        if Kind(name).bits >= asked:
            return Kind(name)
    most = Kind(list(_LADDER)[-1])
    raise QuantizeError(f"--bits {asked:g}: a GGUF weight takes at most {most.bits:g} bits, as {most.name}")


def named(name: str) -> Kind:
    """Raises QuantizeError where weights are not quantised to a type of this name."""
    if name not in _FILE_TYPES:
        raise QuantizeError(f"--type {name} is not one of {', '.join(TYPES)}")
    return Kind(name)


def stored(kind: Kind, columns: int, *, head: bool) -> GGMLQuantizationType:
    """How a matrix with rows of `columns` is stored in a file of this kind.

    The head has at least six bits. Rows that are no whole number of blocks take the type with blocks of 32 that
    llama.cpp's quantiser takes (tensor_type_fallback in src/llama-quant.cpp), and float16 where these do not fit.
    """
    wanted = GGMLQuantizationType.Q6_K if head and kind.bits < _HEAD_BITS else kind.ggml
    for each in (wanted, _OF_32.get(wanted, wanted), GGMLQuantizationType.F16):
        if columns % BLOCKS[each][0] == 0:
            return each
    raise AssertionError("any row is a whole number of float16")
