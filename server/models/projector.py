"""Whether a projector belongs to a model: what both files say of themselves. Reads headers alone.

A projector is a GGUF file beside a language model's (`mmproj-*.gguf`, as llama.cpp's converter writes it with
--mmproj): a vision encoder, and a projection to vectors as wide as the model's embeddings.
"""

from pathlib import Path

from server.models.header import Header

_ARCHITECTURE = "clip"
"""What such files call themselves, whatever encoder they hold."""
_ENCODERS = ("v.blk.", "a.blk.")
"""What the layers of the encoders are called: widths in there say nothing of the model's."""


def check(model: Path, projector: Path) -> None:
    """Raises ValueError, naming the projector, where it is none, sees nothing, or was made for another model."""
    header = Header.read(projector)
    named = header.field("general.architecture")
    if named != _ARCHITECTURE:
        what = f"a model of architecture {named}" if isinstance(named, str) else "no model"
        raise ValueError(f"{projector}: is no projector (mmproj), but {what}")
    if not header.field("clip.has_vision_encoder", False):
        raise ValueError(f"{projector}: is a projector without a vision encoder, so nothing is seen with it")
    width = Header.read(model).count("%.embedding_length")
    widths = {side for name, tensor in header.tensors.items() if not name.startswith(_ENCODERS) for side in tensor.size}
    if width not in widths:
        raise ValueError(
            f"{projector}: was not made for {model.name}, whose embeddings are {width} wide: nothing in it is; take "
            "the mmproj file that comes with the model"
        )
