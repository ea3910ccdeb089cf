"""ExLlamaV2's vision tower behind `Tower`: Qwen2-VL's, Qwen2.5-VL's and Pixtral's, as Mistral 3 has it."""

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from exllamav2 import ExLlamaV2VisionTower
from exllamav2.vlm.util import size_to_longest_edge_and_patch_size, smart_resize
from PIL import Image as Pillow

from server.models.engines.exllama.towers import enclosed, grown, lined, unlined
from server.models.engines.exllama.vision import Embedded

_PIXTRAL = "pixtral"
_TOKENS = {_PIXTRAL: ("[IMG_BREAK]", "[IMG_END]")}
_OF_QWEN = ("<|vision_start|>", "<|vision_end|>")


class V2Tower:
    """See `Tower`. What it makes of a picture has the tokens around it already, so nothing stands beside."""

    around = ("", "")

    def __init__(
        self,
        config: Any,
        image: int,
        control: Mapping[str, int],
        split: list[float] | None,
        progress: Callable[[int, int], None],
    ) -> None:
        """`config` is the model's; `control` its control tokens by their texts, `image` the one for a picture's parts.

        Raises ValueError or KeyError where the files lack something.
        """
        self._config = config = copy.copy(config)
        if config.vision_model_type == "qwen2.5":
            # The package has the width of one size of this model written down, which is that of what is merged, and
            # takes the mean away in a norm by root mean square.
            merged = config.vision_hidden_size * config.vision_spatial_merge_size**2
            config.vision_merger_intermediate_size = merged
            config.arch.mmp.norm = "rmsnorm"
        self._pixtral = config.vision_model_type == _PIXTRAL
        self._image = image
        self._control = control
        first, last = _TOKENS.get(config.vision_model_type, _OF_QWEN)
        for text in (first, last):
            if text not in control:
                raise ValueError(f"its tokenizer has no token {text}, which its pictures need")
        self._ends = control[first], control[last]
        self._tower = ExLlamaV2VisionTower(config)
        self._tower.load(split, callback=progress)
        self.weights_bytes = sum(module.weight_footprint() for module in self._tower.modules)
        self._model: Any = None

    def serve(self, model: Any) -> None:
        """Look for this language model, whose table holds the tokens around a picture."""
        self._model = model

    def fitted(self, size: tuple[int, int]) -> tuple[int, int]:
        return grown(size, 1 if self._pixtral else self._cell)

    def layout(self, size: tuple[int, int]) -> list[int]:
        config = self._config
        if self._pixtral:
            edge = config.vision_size["longest_edge"]
            patch = tuple(config.vision_patch_size[side] * 2 for side in ("width", "height"))
            width, height = size_to_longest_edge_and_patch_size(size, (edge, edge), patch)
            return lined(height // self._cell, width // self._cell, self._image, *self._ends)
        width, height = smart_resize(size, self._cell, config.vision_min_pixels, config.vision_max_pixels)
        return enclosed((width // self._cell) * (height // self._cell), self._image, *self._ends)

    @property
    def _cell(self) -> int:
        """Pixels of a side of what becomes one token."""
        return int(self._config.vision_patch_size["width"] * self._config.vision_spatial_merge_size)

    def single_id(self, text: str) -> int:
        """All that the tower asks a tokenizer for."""
        return self._control[text]

    def embed(self, picture: Pillow.Image) -> Embedded:
        with torch.inference_mode():
            made = self._tower.get_image_embeddings(self._model, self, picture)
        ids = made.get_ids()
        return Embedded(unlined(ids) if self._pixtral else ids, made, made.get_size_in_bytes())

    def close(self) -> None:
        self._tower.unload()
        self._model = None
