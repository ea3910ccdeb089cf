"""Models for the check: a random llama in GPTQ's form, and the same weights as 16-bit floats where they are compared.

The packed words are drawn, so a 7B-shaped one is a matter of seconds, and what they stand for is known exactly.
"""

import json
from pathlib import Path
from typing import Any

from bench.gpu.arithmetic import Size
from server.models.made.vocabulary import ENDOFTEXT, IM_END, Vocabulary, trained
from server.models.quantization.gptq import LEVELS, PACKED, Rounded

SIZES = {
    "tiny": Size(256, 2, 4, 2, 512, 1024),
    "small": Size(512, 2, 8, 4, 1024, 4096),
    "middle": Size(2048, 16, 32, 8, 8192, 32_768),
    "short": Size(2048, 4, 32, 8, 8192, 32_768),
    "7b": Size(4096, 32, 32, 32, 11_008, 32_000),
}
_ZERO = LEVELS // 2
_SPREAD = (LEVELS**2 - 1) / 12
"""Variance of whole numbers drawn evenly from 0 to 15."""
_CONTEXT = 8192


def make(folder: Path, size: Size, *, halves: bool, seed: int = 0) -> Path:
    """Write `folder`/gptq, and `folder`/fp16 with `halves`; what is there already stays.

    Without `halves`, where speed is asked for, groups are in the order of the inputs and `g_idx` is left out: with it
    ExLlamaV2 looks up every row.
    """
    import torch
    from safetensors.torch import save_file

    if (folder / "done").exists():
        return folder
    torch.manual_seed(seed)
    vocabulary = trained(min(size.vocabulary - 16, 2000), "llama-bpe")
    forms = ["gptq", *(["fp16"] if halves else [])]
    for form in forms:
        (folder / form).mkdir(parents=True, exist_ok=True)
        _describe(folder / form, size, vocabulary, quantised=form == "gptq")
    places: dict[str, dict[str, str]] = {form: {} for form in forms}
    for number, tensors in enumerate(_parts(size)):
        packed: dict[str, Any] = {}
        plain: dict[str, Any] = {}
        for name, each in tensors.items():
            if isinstance(each, Rounded):
                stem = name.removesuffix(".weight")
                parts = {part: value for part, value in each.packed().items() if halves or part != "g_idx"}
                packed |= {f"{stem}.{part}": value.cpu() for part, value in parts.items()}
                if halves:
                    plain[name] = each.weights().half().cpu().contiguous()
            else:
                packed[name] = plain[name] = each.half().cpu().contiguous()
        name = f"model-{number + 1:05}-of-{size.layers + 1:05}.safetensors"
        for form, held in zip(forms, (packed, plain), strict=False):
            save_file(held, folder / form / name, metadata={"format": "pt"})
            places[form] |= dict.fromkeys(held, name)
    for form in forms:
        index = {"metadata": {}, "weight_map": places[form]}
        (folder / form / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    (folder / "done").touch()
    return folder


def _parts(size: Size) -> Any:
    """The tensors of each file: those the model has once, then layer by layer."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    keys = size.kv_heads * size.head_dim
    yield {
        "model.embed_tokens.weight": torch.randn(size.vocabulary, size.hidden, device=device),
        "model.norm.weight": torch.ones(size.hidden),
        # The answers stand out from each other, as those of a trained model do.
        "lm_head.weight": torch.randn(size.vocabulary, size.hidden, device=device) * 4 * size.hidden**-0.5,
    }
    for number in range(size.layers):
        layer = f"model.layers.{number}."
        shapes = {"q": (size.hidden, size.hidden), "k": (keys, size.hidden), "v": (keys, size.hidden)}
        shapes |= {"o": (size.hidden, size.hidden)}
        made = {f"{layer}self_attn.{name}_proj.weight": _drawn(shape, size, device) for name, shape in shapes.items()}
        for name, shape in {"gate": (size.ffn, size.hidden), "up": (size.ffn, size.hidden)}.items():
            made[f"{layer}mlp.{name}_proj.weight"] = _drawn(shape, size, device)
        made[f"{layer}mlp.down_proj.weight"] = _drawn((size.hidden, size.ffn), size, device)
        norms = {f"{layer}{name}.weight": torch.ones(size.hidden) for name in ("input_layernorm", _AFTER)}
        yield {**made, **norms}


_AFTER = "post_attention_layernorm"


def _drawn(shape: tuple[int, int], size: Size, device: str) -> Rounded:
    """Weights [out, in] with a variance of 1/in, so that nothing grows on the way through."""
    import torch

    rows, columns = shape
    group = min(size.group, columns)
    assert rows % PACKED == 0 and columns % group == 0
    values = torch.randint(0, LEVELS, shape, dtype=torch.uint8, device=device)
    scales = torch.full((columns // group, rows), (columns * _SPREAD) ** -0.5, device=device)
    scales *= torch.empty_like(scales).uniform_(0.75, 1.25)
    zeros = torch.full((columns // group, rows), _ZERO, dtype=torch.uint8, device=device)
    at = (torch.arange(columns, device=device) // group).to(torch.int32)
    return Rounded(values, scales.half(), zeros, at)


def _describe(folder: Path, size: Size, vocabulary: Vocabulary, *, quantised: bool) -> None:
    end, other = vocabulary.id(IM_END), vocabulary.id(ENDOFTEXT)
    said: dict[str, Any] = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "torch_dtype": "float16",
        "vocab_size": size.vocabulary,
        "hidden_size": size.hidden,
        "intermediate_size": size.ffn,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "num_key_value_heads": size.kv_heads,
        "head_dim": size.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": _CONTEXT,
        "rms_norm_eps": 1e-5,
        "rope_theta": 500_000.0,
        "tie_word_embeddings": False,
        "bos_token_id": other,
        "eos_token_id": end,
        "attention_bias": False,
        "mlp_bias": False,
    }
    if quantised:
        said["quantization_config"] = {
            "quant_method": "gptq",
            "bits": 4,
            "group_size": size.group,
            "desc_act": False,
            "sym": True,
            "checkpoint_format": "gptq",
        }
    tokenizer = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": IM_END, "pad_token": ENDOFTEXT}
    for name, value in {"config.json": said, "tokenizer_config.json": {**tokenizer, "add_bos_token": False}}.items():
        (folder / name).write_text(json.dumps(value, indent=2), encoding="utf-8")
    (folder / "tokenizer.json").write_text(vocabulary.tokenizer().to_str(), encoding="utf-8")
