"""ExLlamaV3's vision component behind `Tower`: which grid each of its towers makes of a picture."""

from collections.abc import Callable
from typing import Any

import torch
from exllamav3 import Model
from exllamav3.architecture.mm_processing.common import size_to_longest_edge_and_patch_size
from exllamav3.architecture.mm_processing.qwen2 import qwen2_smart_resize
from PIL import Image as Pillow

from server.models.engines.exllama.sight import in_tower
from server.models.engines.exllama.towers import enclosed, grown, lined, unlined
from server.models.engines.exllama.vision import Embedded

_LINED = ("Mistral3ForConditionalGeneration",)
_BOTH_FRAMES = ("Glm4vForConditionalGeneration", "Glm4vMoeForConditionalGeneration")
"""Whose bounds are of the pixels of both frames that a picture becomes; the package takes them for one frame's."""


class V3Tower:
    """See `Tower`. What it makes of a picture has the tokens around it already, so nothing stands beside."""

    around = ("", "")

    def __init__(
        self,
        settings: Any,
        tokenizer: Any,
        image: int,
        split: list[float] | None,
        progress: Callable[[int, int], None],
    ) -> None:
        """`settings` and `tokenizer` are the package's own of the model, `image` the token for a picture's parts."""
        self._settings = settings
        self._tokenizer = tokenizer
        self._image = image
        if settings.architecture in _BOTH_FRAMES:
            scaling, frames = settings.vision_pp, settings.vision_pp.temporal_patch_size
            scaling.min_pixels, scaling.max_pixels = scaling.min_pixels / frames, scaling.max_pixels / frames
        self._tower = Model.from_config(settings, component="vision")
        self._tower.load(use_per_device=split, callback=progress)
        files = settings.stc
        self.weights_bytes = sum(files.get_tensor_size(name) for name in files.tensor_file_map if in_tower(name))

    def fitted(self, size: tuple[int, int]) -> tuple[int, int]:
        return grown(size, 1 if self._settings.architecture in _LINED else self._cell)

    def layout(self, size: tuple[int, int]) -> list[int]:
        settings, scaling = self._settings, self._settings.vision_pp
        if settings.architecture in _LINED:
            edge = scaling.size["longest_edge"]
            width, height = size_to_longest_edge_and_patch_size(size, (edge, edge), (self._cell, self._cell))
            ends = self._tokenizer.single_id("[IMG_BREAK]"), self._tokenizer.single_id("[IMG_END]")
            return lined(height // self._cell, width // self._cell, self._image, *ends)
        width, height = qwen2_smart_resize(size, self._cell, scaling.min_pixels, scaling.max_pixels)
        ends = settings.vision_start_token_id, settings.vision_end_token_id
        return enclosed((width // self._cell) * (height // self._cell), self._image, *ends)

    @property
    def _cell(self) -> int:
        """Pixels of a side of what becomes one token."""
        return int(self._settings.vision_pp.patch_size * self._settings.vision.spatial_merge_size)

    def embed(self, picture: Pillow.Image) -> Embedded:
        with torch.inference_mode():
            made = self._tower.get_image_embeddings(tokenizer=self._tokenizer, image=picture)
        ids = list(made.token_list)
        tensors = [made.embeddings, *(made.deepstack_embeddings or ())]
        size = sum(each.numel() * each.element_size() for each in tensors)
        return Embedded(unlined(ids) if self._settings.architecture in _LINED else ids, made, size)

    def close(self) -> None:
        self._tower.unload()
