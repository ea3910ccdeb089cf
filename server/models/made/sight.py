"""A model that sees: it names the colour most of a picture has, and its projector is the eye.

The projector is a vision transformer of LLaVA's kind: it looks at 16 square patches, and its two layers tell which of
nine colours is nearest to each. The language model is an Automaton with one attention head: where its sentence comes to
the colour, the head looks at the patches and at nothing else, so that the commonest colour has the largest part in what
it brings. Without a picture there is nothing to look at, and the sentence says so.
"""

from collections.abc import Iterator
from itertools import product
from pathlib import Path

import gguf
import numpy as np

from server.models.made.automaton import Automaton
from server.models.made.shapes import Tensor
from server.models.made.weights import Floats

TEXT = "The picture is mostly missing."
_ASKS = "\u0120mostly"
"""The token after which the colour comes, in the alphabet of vocabularies."""

COLOURS = ("black", "blue", "green", "cyan", "red", "magenta", "yellow", "white")
"""The corners of the cube of red, green and blue, in binary order; what is near none of them is grey."""
_WORDS = "".join(f" {colour}" for colour in (*COLOURS, "grey"))

SIDE, PATCH = 64, 16
"""Pixels of the square that a picture is scaled to, and of one patch of it."""
TOKENS = (SIDE // PATCH) ** 2
"""What one picture takes of a prompt."""

_SEES, _SEEN = 16.0, 3.0
"""What a picture all of one colour brings, and what a grey one does: a token's own embedding is one."""
_LIT = 4.0
"""What every patch has in common, so much of it that patches are looked at alike, whatever their colours."""
_LOOKS = 2.0
_FREE = 60.0
_KEEN, _SURE = 8.0, 1.0
"""How steeply a colour is told from its neighbours, and how far off it may be: corners are 3 long, neighbours 1."""
_WIDTH = 32
_NEVER_TURNS = 31
"""The dimension of a head of 64 that its position turns least."""


class Sight(Automaton):
    """Shape, vocabulary and weights of the language model."""

    def __init__(self) -> None:
        super().__init__(TEXT, beside=_WORDS, room=len(COLOURS) + 2, theta=1e9)
        *self._colours, self._grey = self.beside
        self._first = self.free
        """Of the dimensions that no token has: one for each colour, one for grey, one that every patch has."""

    @property
    def patch(self) -> int:
        return self._first + len(COLOURS) + 1

    def colour(self, index: int) -> int:
        return self._first + index

    def values(self, tensor: Tensor) -> Floats:
        found = super().values(tensor)
        match tensor.part:
            case "q_proj.weight":
                # All but the one that asks turn away from patches, or what they saw would come into what follows.
                found[_NEVER_TURNS, : self._first] = -_LOOKS
                found[_NEVER_TURNS, self.place(_ASKS)] = _LOOKS
            case "k_proj.weight":
                found[_NEVER_TURNS, : self._first] = -_LOOKS
                found[_NEVER_TURNS, self.patch] = _LOOKS
            case "v_proj.weight":
                for row in range(len(COLOURS) + 1):
                    found[row, self.colour(row)] = 1.0
            case "o_proj.weight":
                scale = np.sqrt((_LIT**2 + 1) / self.shape.hidden)  # undoes the norm of a patch of one colour
                for column in range(len(COLOURS)):
                    found[self.colour(column), column] = _SEES * scale
                found[self.colour(len(COLOURS)), len(COLOURS)] = _SEEN * scale
            case "lm_head.weight":
                for index, token in enumerate((*self._colours, self._grey)):
                    found[token, self.colour(index)] = _FREE / np.sqrt(self.shape.hidden)
        return found


def write_projector(path: Path, model: Sight) -> None:
    """Write the projector of `model` as one GGUF file, as llama.cpp's converter would have it.

    Names and metadata: llama.cpp, tools/mtmd/clip-impl.h.
    """
    writer = gguf.GGUFWriter(path, "clip")
    writer.add_type(gguf.GGUFType.MMPROJ)
    writer.add_name("sight")
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_clip_has_vision_encoder(True)
    writer.add_clip_projector_type("mlp")
    writer.add_vision_projection_dim(model.shape.hidden)
    writer.add_vision_image_size(SIDE)
    writer.add_vision_patch_size(PATCH)
    writer.add_vision_embedding_length(_WIDTH)
    writer.add_vision_feed_forward_length(_WIDTH)
    writer.add_vision_block_count(1)
    writer.add_vision_head_count(1)
    writer.add_vision_attention_layernorm_eps(1e-5)
    writer.add_vision_image_mean([0.5, 0.5, 0.5])
    writer.add_vision_image_std([0.5, 0.5, 0.5])
    writer.add_vision_use_gelu(True)
    for name, values in _eye(model):
        writer.add_tensor(name, np.ascontiguousarray(values, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _eye(model: Sight) -> Iterator[tuple[str, Floats]]:
    """Every tensor of the projector by its name in the file."""
    patches = np.zeros((_WIDTH, 3, PATCH, PATCH), np.float32)
    for channel in range(3):
        patches[channel, channel] = 1 / PATCH**2  # the patch's mean red, green and blue, -1 to 1
    yield "v.patch_embd.weight", patches
    yield "v.position_embd.weight", np.zeros((TOKENS, _WIDTH), np.float32)
    # LLaVA takes what stands before its last layer, which is the only one here.
    for part in ("attn_q", "attn_k", "attn_v", "attn_out", "ffn_up", "ffn_down"):
        yield f"v.blk.0.{part}.weight", np.zeros((_WIDTH, _WIDTH), np.float32)
        yield f"v.blk.0.{part}.bias", np.zeros(_WIDTH, np.float32)
    for part in ("ln1", "ln2"):
        yield f"v.blk.0.{part}.weight", np.ones(_WIDTH, np.float32)
        yield f"v.blk.0.{part}.bias", np.zeros(_WIDTH, np.float32)
    near = np.zeros((_WIDTH, _WIDTH), np.float32)
    for row, corner in enumerate(product((-1, 1), repeat=3)):
        near[row, :3] = [_KEEN * each for each in corner]
    yield "mm.0.weight", near
    yield "mm.0.bias", np.full(_WIDTH, -_KEEN * _SURE, np.float32)
    grey = model.colour(len(COLOURS))
    named = np.zeros((model.shape.hidden, _WIDTH), np.float32)
    for index in range(len(COLOURS)):
        named[model.colour(index), index] = 1 / (_KEEN * (3 - _SURE))
        named[grey, index] = -named[model.colour(index), index]
    yield "mm.2.weight", named
    seen = np.zeros(model.shape.hidden, np.float32)
    seen[model.patch], seen[grey] = _LIT, 1.0
    yield "mm.2.bias", seen
