"""Pictures: small random models that see, and whether what ExLlama makes of a picture is what transformers makes of it.

Compared are what the tower makes of pictures of several shapes, and the answers to prompts with pictures, token by
token.
"""

import io
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Pillow

from bench.gpu.arithmetic import relative_error
from config.model import LocalModel
from server.models.engine import Admitted, Delta, Failed, Generate, Image, Sampling, is_last
from server.models.engines import create
from server.models.engines.exllama.engine import ExLlamaEngine
from server.models.made.vocabulary import ENDOFTEXT, IM_END, SPECIAL, trained

IMAGES = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>", "[IMG]", "[IMG_BREAK]", "[IMG_END]")
"""Control tokens of the made vocabulary, behind those it has anyway."""
FAMILIES: dict[str, tuple[str, ...]] = {
    "exllamav2": ("qwen2_vl", "qwen2_5_vl", "mistral3"),
    "exllamav3": ("qwen2_5_vl", "qwen3_vl", "glm4v", "mistral3"),
}
"""Of which small models are made, by the engine that computes them."""
SHAPES = ((140, 84), (90, 300), (640, 480), (33, 40))
"""Width and height of the pictures, in pixels: what fits the grid of patches, and what has to be scaled."""
_ANSWER = 12
_TOKENS = 800
_PATCH = 14
_LONGEST = 280
"""Pixels of the longer side, as mistral3 is made."""
_SCALED = {"image_mean": [0.48, 0.46, 0.41], "image_std": [0.27, 0.26, 0.28], "rescale_factor": 1 / 255, "resample": 3}


def picture(size: tuple[int, int], seed: int) -> bytes:
    """A PNG file of random patches of colour, with edges that scaling keeps."""
    patches = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    file = io.BytesIO()
    Pillow.fromarray(patches).resize(size, Pillow.Resampling.BICUBIC).save(file, "PNG")
    return file.getvalue()


def asked(*files: bytes, tokens: int = _ANSWER) -> Generate:
    """A turn with these pictures amid its words, to be answered greedily."""
    images = [Image(data, f"<picture {at}>", 2048, f"messages[0].content[{at}]") for at, data in enumerate(files)]
    shown = " and ".join(image.mark for image in images)
    prompt = f"<|im_start|>user\nWhat is {shown} about?<|im_end|>\n<|im_start|>assistant\n"
    greedy = Sampling(temperature=0.0, ignore_eos=True, top_logprobs=0)
    return Generate(prompt=prompt, images=images, max_tokens=tokens, sampling=greedy, token_ids=True)


class Answered:
    """What came of one request: `prompt` and `ids` are tokens, `logprobs` of each of `ids`."""

    def __init__(self, admitted: Admitted) -> None:
        self.prompt = admitted.ids
        self.ids: list[int] = []
        self.logprobs: list[float] = []
        self.cached = 0


def answered(engine: ExLlamaEngine, *requests: Generate) -> list[Answered]:
    """All at once. Raises RuntimeError where one fails."""
    found = [Answered(engine.submit(key, request)) for key, request in enumerate(requests)]
    left = len(found)
    while left:
        for key, event in engine.step():
            if isinstance(event, Failed):
                raise RuntimeError(f"request {key} failed: {event.message}")
            if isinstance(event, Delta):
                found[key].ids += event.ids
                found[key].logprobs += [each.logprob or 0.0 for each in event.logprobs]
                found[key].cached += event.cached_tokens
            left -= is_last(event)
    return found


class Oracle:
    """The same model by transformers, in 32 bits, with its own way to scale pictures."""

    def __init__(self, folder: Path, device: str) -> None:
        import torch
        from transformers import AutoImageProcessor, AutoModelForImageTextToText

        self._scaled = AutoImageProcessor.from_pretrained(folder)
        self._model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).to(device).eval()
        self._config = self._model.config
        self._device = device

    def _inputs(self, files: Sequence[bytes]) -> dict[str, Any]:
        pictures = [Pillow.open(io.BytesIO(data)).convert("RGB") for data in files]
        # Mistral 3's processor scales to whole cells, of several patches each.
        cell = {"patch_size": 2 * _PATCH} if self._config.model_type == "mistral3" else {}
        found = self._scaled(images=pictures, return_tensors="pt", **cell)
        return {name: value.to(self._device) for name, value in found.items()}

    def features(self, file: bytes) -> Any:
        """What the tower makes of one picture, f32 [tokens, width]."""
        import torch

        with torch.inference_mode():
            found = self._model.model.get_image_features(**self._inputs([file])).pooler_output
        return found[0].float().cpu().numpy().reshape(-1, found[0].shape[-1])

    def logprobs(self, of: Answered, files: Sequence[bytes]) -> Any:
        """Of all tokens, for each of the answer, f32 [answer, vocabulary]."""
        import torch

        ids = torch.tensor([[*of.prompt, *of.ids]], device=self._device)
        inputs = self._inputs(files) if files else {}
        if self._config.model_type != "mistral3":
            inputs["mm_token_type_ids"] = (ids == self._config.image_token_id).int()
        with torch.inference_mode():
            logits = self._model(input_ids=ids, **inputs).logits[0, len(of.prompt) - 1 : -1]
        return torch.log_softmax(logits.float(), -1).cpu().numpy()


def features(engine: ExLlamaEngine, file: bytes) -> Any:
    """What the engine's tower makes of one picture, f32 [tokens, width]: the picture's own tokens alone."""
    vision = engine._vision
    assert vision is not None
    request = asked(file)
    [placed] = vision.read(request.prompt, request.images).pictures
    made = vision._tower.embed(placed.picture.decoded())
    image = vision._tower.layout(placed.picture.size)
    token = max(set(image), key=image.count)
    first = made.embedding.first_index
    rows = [made_of - first for made_of, known in zip(made.ids, image, strict=True) if known == token]
    return made.embedding.embeddings[rows].float().cpu().numpy()


FIGURES: dict[str, tuple[str, float | None, float | None]] = {
    "features": ("what the tower makes of a picture against transformers, relative error", None, 2e-2),
    "logprobs": ("log-probabilities of answers about pictures against transformers, worst difference", None, 0.15),
    "behind": ("log-probability that a chosen token lacks of transformers' best, worst", None, 0.15),
    "together": ("the same of 6 answers at once", None, 0.15),
    "different": ("other pictures give other answers", 1.0, None),
    "kept": ("share of a prompt with a picture that is not computed again", 0.9, None),
    "tower": ("a picture of 640 x 480 in the tower, ms", None, None),
}
"""What is told of each family, and the bars: at least, at most."""


def compared(engine: ExLlamaEngine, folder: Path, device: str) -> dict[str, float]:
    """FIGURES of an engine with a made model. A small random model chooses between near equals often, and 16 bits
    decide otherwise than 32 then: so what counts is how likely transformers finds what was chosen."""
    oracle = Oracle(folder, device)
    files = [picture(size, seed) for seed, size in enumerate(SHAPES)]
    worst = max(relative_error(features(engine, file), oracle.features(file)) for file in files)
    sets = [*([file] for file in files), files[:2], [files[1], files[0], files[1]]]
    alone = [answered(engine, asked(*each))[0] for each in sets]
    together = answered(engine, *(asked(*each) for each in sets))
    [again] = answered(engine, asked(*sets[0]))
    distances = [_distances(oracle, answer, each) for answer, each in zip(alone, sets, strict=True)]
    company = [_distances(oracle, answer, each) for answer, each in zip(together, sets, strict=True)]
    started = time.perf_counter()
    features(engine, files[2])
    return {
        "features": float(worst),
        "logprobs": max(apart for apart, _ in distances),
        "behind": max(behind for _, behind in distances),
        "together": max(max(each) for each in company),
        "different": float(len({tuple(answer.ids) for answer in alone}) == len(alone)),
        "kept": again.cached / (len(again.prompt) - 1),
        "tower": 1000 * (time.perf_counter() - started),
    }


def _distances(oracle: Oracle, answer: Answered, files: Sequence[bytes]) -> tuple[float, float]:
    """How far the log-probabilities of an answer are from the oracle's, and these from the best, at worst."""
    exact = oracle.logprobs(answer, files)
    chosen = exact[np.arange(len(answer.ids)), answer.ids]
    return float(np.abs(chosen - np.array(answer.logprobs)).max()), float((exact.max(-1) - chosen).max())


def pictures(told: dict[str, Any]) -> dict[str, float]:
    """`compared` of a small model of `family`, made under `folder` where it is not there yet."""
    folder = make_seeing(Path(told["folder"]) / told["family"], told["family"])
    keys = {"engine": told["engine"], "source": str(folder), "context": 2048, "parallel": 8}
    engine, _ = create(LocalModel.model_validate(keys, context={}), Path(told["data"]))
    assert isinstance(engine, ExLlamaEngine)
    engine.load(lambda _: None)
    try:
        return compared(engine, folder, told["device"])
    finally:
        engine.close()


def make_seeing(folder: Path, family: str, *, seed: int = 0) -> Path:
    """Write a model of one of FAMILIES, in 16 bits, as transformers writes it; what is there already stays."""
    import torch

    if (folder / "done").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = trained(_TOKENS, "qwen2").tokenizer()
    tokenizer.add_special_tokens([*IMAGES])
    at = {text: tokenizer.token_to_id(text) for text in (*SPECIAL, *IMAGES)}
    torch.manual_seed(seed)
    model = _model(family, at)
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if weights.dim() > 1:  # so that nothing grows on the way, and answers stand out from each other
                spread = 1.0 if "embed_tokens" in name else (4 if "lm_head" in name else 1) * weights[0].numel() ** -0.5
                weights.normal_(std=spread)
            elif name.endswith("bias"):
                weights.normal_(std=0.1)
    model.half().save_pretrained(folder)
    _describe(folder, family)
    (folder / "tokenizer.json").write_text(tokenizer.to_str(), encoding="utf-8")
    template = (Path(__file__).parents[2] / "server/models/made/chatml.jinja").read_text(encoding="utf-8")
    said = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": IM_END, "pad_token": ENDOFTEXT}
    (folder / "tokenizer_config.json").write_text(json.dumps(said | {"chat_template": template}), encoding="utf-8")
    (folder / "done").touch()
    return folder


def _model(family: str, at: dict[str, int]) -> Any:
    import transformers

    rope = {"rope_type": "default", "rope_theta": 10_000.0}
    text = {
        "vocab_size": 1024,
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
        "bos_token_id": at[ENDOFTEXT],
        "eos_token_id": at[IM_END],
    }
    tower: dict[str, Any]
    if family == "mistral3":
        tower = {"model_type": "pixtral", "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2}
        tower |= {"num_attention_heads": 2, "head_dim": 64, "patch_size": _PATCH, "image_size": _LONGEST}
        tower |= {"hidden_act": "silu"}
        made = transformers.Mistral3Config(
            text_config={"model_type": "mistral", **text, "head_dim": 64, "sliding_window": None},
            vision_config=tower,
            image_token_index=at["[IMG]"],
            spatial_merge_size=2,
            tie_word_embeddings=False,
        )
        return transformers.Mistral3ForConditionalGeneration(made)
    text["rope_parameters"] = {**rope, "type": "mrope", "mrope_section": [8, 12, 12]}
    tower = {"depth": 2, "num_heads": 2, "patch_size": _PATCH, "spatial_merge_size": 2, "temporal_patch_size": 2}
    named = {
        "image_token_id": at["<|image_pad|>"],
        "video_token_id": at["<|video_pad|>"],
        "vision_start_token_id": at["<|vision_start|>"],
        "vision_end_token_id": at["<|vision_end|>"],
    }
    if family == "qwen2_vl":
        tower |= {"embed_dim": 128, "hidden_size": 256, "mlp_ratio": 2}
        made = transformers.Qwen2VLConfig(text_config=text, vision_config=tower, **named)
        return transformers.Qwen2VLForConditionalGeneration(made)
    tower |= {"hidden_size": 128, "out_hidden_size": 256, "intermediate_size": 256}
    if family == "glm4v":
        text["rope_parameters"] = {**rope, "mrope_section": [8, 4, 4], "partial_rotary_factor": 0.5}
        tower |= {"image_size": 224}
        ends = {"image_start_token_id": at["<|vision_start|>"], "image_end_token_id": at["<|vision_end|>"]}
        made = transformers.Glm4vConfig(
            text_config=text, vision_config=tower, image_token_id=named["image_token_id"], **ends
        )
        return transformers.Glm4vForConditionalGeneration(made)
    if family == "qwen3_vl":
        text["rope_parameters"]["mrope_interleaved"] = True
        tower |= {"num_position_embeddings": 16**2, "deepstack_visual_indexes": [0, 1]}
        made = transformers.Qwen3VLConfig(text_config={**text, "head_dim": 64}, vision_config=tower, **named)
        return transformers.Qwen3VLForConditionalGeneration(made)
    tower |= {"window_size": 112, "fullatt_block_indexes": [1]}
    made = transformers.Qwen2_5_VLConfig(text_config=text, vision_config=tower, **named)
    return transformers.Qwen2_5_VLForConditionalGeneration(made)


def _describe(folder: Path, family: str) -> None:
    """How a picture is scaled, in the words of transformers 5."""
    if family == "mistral3":
        scaled = {"image_processor_type": "PixtralImageProcessorFast", "size": {"longest_edge": _LONGEST}}
        scaled |= {"patch_size": _PATCH}
    else:
        edges = {"shortest_edge": 56 * 56, "longest_edge": 256 * 256}
        scaled = {"image_processor_type": "Qwen2VLImageProcessorFast", "size": edges, "patch_size": _PATCH}
        scaled |= {"temporal_patch_size": 2, "merge_size": 2}
        if family == "glm4v":
            scaled["image_processor_type"] = "Glm4vImageProcessorFast"
    said = {"image_processor": {**_SCALED, **scaled}}
    (folder / "processor_config.json").write_text(json.dumps(said), encoding="utf-8")
