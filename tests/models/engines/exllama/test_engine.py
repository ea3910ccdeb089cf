"""The engine exllamav2 over the real package on the processor: what the package alone gets wrong, and all else.

Model, pages, generator and LoRA are ExLlamaV2's own code; see `processor`.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from config.model import LocalModel
from server.errors import ContextLengthExceeded, InvalidValue
from server.models.engine import Card, Failed, Generate, Grammar, Sampling, Scored, is_last
from server.models.engines.exllama import generator as limits
from server.models.engines.exllama.engine import ExLlamaEngine
from tests.making import TEXT, made
from tests.making.oracle import needs_torch
from tests.models.engines.driving import deltas, finished, steps, text
from tests.models.engines.exllama.processor import needs_exllamav2, on_processor

pytestmark = [needs_exllamav2, needs_torch]

PROMPT = "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
LETTERS = "The quick brown fox jumps over the lazy dog. " * 60
GREEDY = Sampling(temperature=0.0)


@pytest.fixture(autouse=True, scope="module")
def processor() -> Iterator[None]:
    with on_processor():
        yield


def _engine(folder: Path, data: Path = Path("nowhere"), **keys: object) -> tuple[ExLlamaEngine, Card]:
    spec = LocalModel.model_validate({"engine": "exllamav2", "source": str(folder), "context": 512, **keys}, context={})
    drafter = spec.draft.path if spec.draft is not None and not spec.draft.is_ngram else None
    engine = ExLlamaEngine("exllamav2", spec, folder, data, drafter)
    return engine, engine.load(lambda _: None)


def _automaton() -> Path:
    return made("automaton", format="safetensors")


def _random(family: str = "llama") -> Path:
    return made("random", format="safetensors", family=family)


@pytest.fixture(scope="module")
def speaking(processor: None) -> Iterator[ExLlamaEngine]:
    engine, _ = _engine(_automaton())
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def random(processor: None) -> Iterator[ExLlamaEngine]:
    engine, _ = _engine(_random(), context=4096, cache_tokens=4096)
    yield engine
    engine.close()


def _pages_in_use(engine: ExLlamaEngine) -> int:
    assert engine._generator is not None
    return len(engine._generator._generator.referenced_pages)  # type: ignore[attr-defined]


# ---- the numbers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3"])
def test_logits_are_those_of_transformers(family: str) -> None:
    """Of prompts read in pieces through pages and the attention of this engine, f16 against f32.

    The package by itself forgets mistral's sliding window, and takes a mean away in qwen3's norms of heads.
    """
    import torch
    from transformers import AutoModelForCausalLM

    engine, _ = _engine(_random(family), context=1024)
    ids = engine._words.encode(LETTERS)[:300]
    [events] = finished(engine, Generate(prompt=ids, max_tokens=0, prompt_logprobs=5))
    engine.close()
    oracle = AutoModelForCausalLM.from_pretrained(_random(family), dtype=torch.float32)
    with torch.inference_mode():
        logits = oracle(torch.tensor([ids])).logits[0]
    exact = torch.log_softmax(logits[:-1].double(), -1)[torch.arange(len(ids) - 1), torch.tensor(ids[1:])]
    assert isinstance(events[0], Scored)
    told = np.array([each.logprob for each in events[0].tokens[1:]])
    assert len(told) == len(ids) - 1
    assert np.abs(told - exact.numpy()).max() < 0.15
    assert np.abs(told - exact.numpy()).mean() < 0.02  # of log-probabilities down to -20, in f16


def test_scoring_a_prompt_takes_nothing_from_pages_and_leaves_nothing_wrong(random: ExLlamaEngine) -> None:
    ids = random._words.encode(LETTERS)[:600]
    scored = Generate(prompt=ids, max_tokens=3, prompt_logprobs=0, sampling=GREEDY)
    plain = Generate(prompt=ids, max_tokens=3, sampling=GREEDY)
    [before], [first], [again], [after] = (finished(random, each) for each in (plain, scored, scored, plain))
    assert isinstance(first[0], Scored) and isinstance(again[0], Scored)
    assert len(first[0].tokens) == len(again[0].tokens) == 600
    assert first[0] == again[0]
    assert text(first) == text(again) == text(before) == text(after)
    assert deltas(after)[0].cached_tokens >= 512


def test_company_does_not_change_an_answer(random: ExLlamaEngine) -> None:
    asked = [Generate(prompt=LETTERS[: 200 * n], max_tokens=20, sampling=GREEDY) for n in range(1, 6)]
    alone = [text(finished(random, request)[0]) for request in asked]
    assert [text(events) for events in finished(random, *asked)] == alone


def test_a_prompt_read_before_is_not_computed_again(random: ExLlamaEngine) -> None:
    request = Generate(prompt="Another beginning. " + LETTERS, max_tokens=4, sampling=GREEDY)
    [first] = finished(random, request)
    [again] = finished(random, request)
    assert deltas(first)[0].cached_tokens == 0
    assert deltas(again)[0].cached_tokens >= 256
    assert text(first) == text(again)


def test_a_folder_of_transformers_5_is_read_with_its_own_rope(tmp_path: Path) -> None:
    """Its `rope_parameters` are passed over by ExLlamaV2, whose base would then be 10000."""
    folder = tmp_path / "model"
    shutil.copytree(_random(), folder)
    told = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    told["rope_parameters"] = {"rope_type": "default", "rope_theta": told.pop("rope_theta")}
    told["dtype"] = told.pop("torch_dtype", "float32")
    (folder / "config.json").write_text(json.dumps(told), encoding="utf-8")
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    engine, _ = _engine(folder, tmp_path / "data")
    assert engine._generator._model.config.rotary_embedding_base == told["rope_parameters"]["rope_theta"]  # type: ignore[union-attr]
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    assert list((tmp_path / "data" / "cache").iterdir()) == []
    engine.close()


def _quantised(folder: Path) -> tuple[Path, Path]:
    """The random model as AWQ of 4 bits, and in 16 bits with the very weights that this stands for."""
    from safetensors.torch import load_file, save_file

    group, order = 64, (0, 2, 4, 6, 1, 3, 5, 7)
    awq: dict[str, Any] = {}
    exact: dict[str, Any] = {}
    for name, tensor in load_file(_random() / "model.safetensors").items():
        if "_proj" not in name:
            awq[name] = exact[name] = tensor.half()
            continue
        wide = tensor.float().T.reshape(-1, group, len(tensor))
        least, most = wide.amin(1).clamp(max=0), wide.amax(1).clamp(min=0)
        scales = ((most - least) / 15).clamp(min=1e-6).half()
        zeros = (-least / scales.float()).round().clamp(1, 15)
        values = (wide / scales.float()[:, None] + zeros[:, None]).round().clamp(0, 15)
        exact[name] = ((values - zeros[:, None]) * scales.float()[:, None]).flatten(0, 1).T.half().contiguous()
        for kind, each in (("qweight", values.flatten(0, 1)), ("qzeros", zeros)):
            packed = sum(each[:, column::8].long() << 4 * place for place, column in enumerate(order))
            awq[name.replace("weight", kind)] = (packed - (packed >= 2**31) * 2**32).int().contiguous()
        awq[name.replace("weight", "scales")] = scales
    for name, tensors in (("awq", awq), ("exact", exact)):
        shutil.copytree(_random(), folder / name)
        save_file(tensors, folder / name / "model.safetensors")
    told = json.loads((folder / "awq" / "config.json").read_text(encoding="utf-8"))
    told["quantization_config"] = {"quant_method": "awq", "bits": 4, "group_size": group, "version": "gemm"}
    (folder / "awq" / "config.json").write_text(json.dumps(told), encoding="utf-8")
    return folder / "awq", folder / "exact"


def test_an_awq_model_is_repacked_and_computes_the_weights_it_stands_for(tmp_path: Path) -> None:
    told = []
    for folder in _quantised(tmp_path):
        engine, card = _engine(folder, tmp_path / "data")
        ids = engine._words.encode(LETTERS)[:200]
        [events] = finished(engine, Generate(prompt=ids, max_tokens=0, prompt_logprobs=0))
        assert isinstance(events[0], Scored)
        told.append((card.weights_bytes, np.array([each.logprob for each in events[0].tokens[1:]])))
        engine.close()
    (small, packed), (large, exact) = told
    assert small < large
    assert np.abs(packed - exact).mean() < 0.02
    again, _ = _engine(tmp_path / "awq", tmp_path / "data")
    assert len(list((tmp_path / "data" / "cache" / "gptq-of-awq").iterdir())) == 1
    again.close()


# ---- how answers end ------------------------------------------------------------------------------------------------


def test_the_automaton_says_its_text_and_ends(speaking: ExLlamaEngine) -> None:
    [events] = finished(speaking, Generate(prompt=PROMPT))
    assert text(events) == TEXT
    assert deltas(events)[-1].finish_reason == "stop"


@pytest.mark.parametrize("draft", ["ngram", "model"])
@pytest.mark.parametrize("most", [1, 10, 33])
def test_guesses_do_not_cut_an_answer_short(draft: str, most: int) -> None:
    """The package ends a request as many tokens early as it guesses ahead."""
    source = "ngram" if draft == "ngram" else str(_automaton())
    engine, _ = _engine(_automaton(), draft=source, draft_tokens=4)
    request = Generate(prompt=PROMPT, max_tokens=most, sampling=Sampling(temperature=0.0, ignore_eos=True))
    [events] = finished(engine, request)
    assert sum(delta.tokens for delta in deltas(events)) == most
    assert deltas(events)[-1].finish_reason == "length"
    assert TEXT.startswith(text(events))
    [events] = finished(engine, Generate(prompt=PROMPT))
    assert text(events) == TEXT
    assert deltas(events)[-1].finish_reason == "stop"
    engine.close()


def test_every_token_that_ends_an_answer_does(tmp_path: Path) -> None:
    """The package keeps the first of a list alone."""
    folder = tmp_path / "model"
    shutil.copytree(_automaton(), folder)
    engine, _ = _engine(folder)
    first = engine._words.encode(TEXT)[3]
    engine.close()
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [0, 1, first]}), encoding="utf-8")
    engine, _ = _engine(folder)
    [events] = finished(engine, Generate(prompt=PROMPT))
    assert TEXT.startswith(text(events)) and text(events) != TEXT
    assert deltas(events)[-1].finish_reason == "stop"
    engine.close()


def test_what_is_held_back_of_a_character_is_said_at_the_end(random: ExLlamaEngine) -> None:
    """The package leaves the tail that it holds back out of an answer that a token ends."""
    words = random._words
    lead = next(token for token, piece in enumerate(words.pieces) if piece == "é".encode()[:1])
    end = min(words.ends)
    sampling = Sampling(temperature=0.0, logit_bias={lead: 100.0}, stop_token_ids=[5], min_tokens=1)
    [events] = finished(random, Generate(prompt="a", max_tokens=1, sampling=sampling))
    assert text(events) == "\N{REPLACEMENT CHARACTER}"
    grammar = Grammar("lark", f"start: <[{lead}]> <[{end}]>")
    [events] = finished(random, Generate(prompt="a", grammar=grammar))
    assert text(events) == "\N{REPLACEMENT CHARACTER}"
    assert deltas(events)[-1].finish_reason == "stop"


def test_an_answer_longer_than_its_lease_goes_on(random: ExLlamaEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its pages are found again, so nothing is computed twice but the token it had come to."""
    asked = Generate(prompt="one", max_tokens=130, sampling=Sampling(temperature=0.0, ignore_eos=True))
    [whole] = finished(random, asked)
    monkeypatch.setattr("server.models.engines.exllama.v2.LEASE", 40)
    [pieces] = finished(random, asked)
    assert sum(delta.tokens for delta in deltas(pieces)) == 130
    assert text(pieces) == text(whole)
    assert [is_last(event) for event in pieces].count(True) == 1


def test_leases_let_more_answers_run_than_their_limits_would() -> None:
    """Two whole contexts fit; four answers that may have one each run together."""
    engine, _ = _engine(_random(), context=4096, cache_tokens=2 * 4096)
    assert limits.LEASE < 2048
    for key in range(4):
        engine.submit(key, Generate(prompt="Hello", sampling=Sampling(ignore_eos=True)))
    for _ in range(3):
        engine.step()
    assert len(engine._generator._generator.active_jobs) == 4  # type: ignore[union-attr]
    engine.close()


def test_a_request_over_the_pages_is_refused_before_the_package_sees_it(speaking: ExLlamaEngine) -> None:
    """The package takes it to be asserted, and spins over what it refused."""
    with pytest.raises(ContextLengthExceeded):
        speaking.submit(1, Generate(prompt="word " * 2000))
    assert not speaking.busy
    assert speaking._generator._generator.num_remaining_jobs() == 0  # type: ignore[union-attr]


# ---- sampling -------------------------------------------------------------------------------------------------------


def test_defaults_are_neutral_and_seeds_repeat(random: ExLlamaEngine) -> None:
    asked = [Generate(prompt=PROMPT, max_tokens=16, sampling=Sampling(seed=seed)) for seed in (1, 1, 2)]
    first, again, other = (text(events) for events in finished(random, *asked))
    assert first == again != other


def test_log_probabilities_are_of_the_raw_logits(speaking: ExLlamaEngine) -> None:
    bias = {ord("a") - ord("!"): 100.0}  # the alphabet of byte-level BPE begins with "!"
    plain, biased = finished(
        speaking,
        Generate(prompt=PROMPT, max_tokens=1, sampling=Sampling(temperature=0.0, top_logprobs=3)),
        Generate(prompt=PROMPT, max_tokens=1, sampling=Sampling(temperature=0.0, top_logprobs=3, logit_bias=bias)),
    )
    [told], [other] = deltas(plain)[0].logprobs, deltas(biased)[0].logprobs
    assert told.token == "Hello" and told.top[0].token == "Hello" and len(told.top) == 3
    assert other.top == told.top and other.token != "Hello" and (other.logprob or 0) < -20


def test_grammars_bind_a_model_that_would_never_obey(random: ExLlamaEngine) -> None:
    schema = {
        "type": "object",
        "properties": {"age": {"type": "integer", "minimum": 0, "maximum": 99}, "kind": {"enum": ["cat", "dog"]}},
        "required": ["age", "kind"],
        "additionalProperties": False,
    }
    grammar = Grammar("json_schema", json.dumps(schema))
    asked = [Generate(prompt=PROMPT, grammar=grammar, sampling=Sampling(seed=seed)) for seed in range(4)]
    for events in finished(random, *asked):
        found = json.loads(text(events))
        assert found["kind"] in ("cat", "dog") and 0 <= found["age"] <= 99
        assert deltas(events)[-1].finish_reason == "stop"


def test_a_fault_of_one_answer_is_its_own(random: ExLlamaEngine) -> None:
    random.submit(0, Generate(prompt="one", max_tokens=8, sampling=GREEDY))
    everything = dict.fromkeys(range(len(random._words.pieces)), float("-inf"))
    random.submit(1, Generate(prompt="two", max_tokens=8, sampling=Sampling(logit_bias=everything)))
    events = steps(random)
    assert [type(event) for key, event in events if key == 1] == [Failed]
    assert [event for key, event in events if key == 0 and is_last(event)]
    assert _pages_in_use(random) == 0


# ---- pages, cancellation, adapters ----------------------------------------------------------------------------------


def test_cancelling_frees_the_pages_at_once(random: ExLlamaEngine) -> None:
    random.submit(1, Generate(prompt=LETTERS, max_tokens=500, sampling=Sampling(ignore_eos=True)))
    random.step()
    random.step()
    assert _pages_in_use(random) > 0
    random.cancel(1)
    assert _pages_in_use(random) == 0
    assert not random.busy


def test_no_more_than_parallel_answers_are_under_way_at_once() -> None:
    engine, _ = _engine(_random(), parallel=2)
    for key in range(5):
        engine.submit(key, Generate(prompt="Hello", max_tokens=3, sampling=Sampling(ignore_eos=True)))
    engine.step()
    assert len(engine._generator._generator.active_jobs) == 2  # type: ignore[union-attr]
    assert sorted(key for key, event in steps(engine) if is_last(event)) == [0, 1, 2, 3, 4]
    engine.close()


def test_the_card_tells_sizes_attention_and_what_computes() -> None:
    engine, card = _engine(_random(), context=512)
    assert card.attention == "torch sdpa"
    assert "ExLlamaV2 0.3.2" in card.description and "torch sdpa" in card.description
    tokens = (2 * 512 // 256 + 1) * 256
    assert card.cache_bytes == 2 * 2 * tokens * 2 * 64 * 2
    assert card.precision == "f16" and card.rendered
    engine.close()


@pytest.mark.parametrize("cache", ["fp16", "q8", "q6", "q4"])
def test_the_estimate_of_the_cache_is_what_the_package_sets_aside(cache: str) -> None:
    """Two folders of different heads; `hearth check` and the owner of a GPU go by the estimate."""
    import exllamav2

    from server.models.engines.exllama import v2
    from server.models.vram import needed

    for folder in (_random(), _random("qwen3")):
        settings = exllamav2.ExLlamaV2Config(str(folder))
        model = exllamav2.ExLlamaV2(settings)
        model.load()
        keys = {"engine": "exllamav2", "source": str(folder), "cache": cache}
        spec = LocalModel.model_validate(keys, context={})
        kept = v2._CACHES[cache](model, max_seq_len=1024)
        assert needed("exllamav2", spec, folder, None, 1024)[1] == v2._bytes(kept)


def _adapter(folder: Path, seed: int) -> Path:
    """A LoRA adapter in PEFT's form over the query and value projections of the random model."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir()
    told = {"r": 4, "lora_alpha": 64, "target_modules": ["q_proj", "v_proj"], "peft_type": "LORA"}
    (folder / "adapter_config.json").write_text(json.dumps(told), encoding="utf-8")
    drawn = torch.Generator().manual_seed(seed)
    made: dict[str, Any] = {}
    for layer in range(2):
        for name, rows in (("q_proj", 256), ("v_proj", 128)):
            place = f"base_model.model.model.layers.{layer}.self_attn.{name}"
            made[f"{place}.lora_A.weight"] = torch.randn(4, 256, generator=drawn) * 0.05
            made[f"{place}.lora_B.weight"] = torch.randn(rows, 4, generator=drawn) * 0.05
    save_file(made, folder / "adapter_model.safetensors")
    return folder


def test_adapters_change_answers_and_a_switch_waits_for_those_before(tmp_path: Path) -> None:
    names = [str(_adapter(tmp_path / name, seed)) for seed, name in enumerate(("formal", "terse"))]
    engine, card = _engine(_random(), adapters=names)
    assert "adapter" in card.honours

    def asked(adapter: str | None) -> Generate:
        return Generate(prompt=LETTERS[:200], max_tokens=12, sampling=Sampling(temperature=0.0, adapter=adapter))

    alone = {name: text(finished(engine, asked(name))[0]) for name in (None, "formal", "terse")}
    assert len(set(alone.values())) == 3
    order = (None, "formal", None, "terse", "formal")
    assert [text(events) for events in finished(engine, *map(asked, order))] == [alone[name] for name in order]
    with pytest.raises(InvalidValue, match="'gone' is not one of this model's: formal, terse") as refused:
        engine.submit(1, asked("gone"))
    assert refused.value.param == "adapter"
    engine.close()
