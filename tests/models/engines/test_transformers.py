"""The transformers engine: what it says, how it takes turns, and which folders it refuses; skipped without torch."""

import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from config.model import LocalModel
from server.errors import ContextLengthExceeded, InvalidValue
from server.models.engine import Card, Delta, Failed, Generate, Grammar, Sampling, Scored, TokenLogprob, is_last
from server.models.engines.transformers.engine import TransformersEngine
from tests.making import TEXT, made
from tests.making.oracle import needs_torch
from tests.models.engines.driving import deltas, finished, steps, text

pytestmark = needs_torch

PROMPT = "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
LETTERS = "The quick brown fox jumps over the lazy dog. " * 8


def _engine(folder: Path, **keys: object) -> tuple[TransformersEngine, Card]:

    keys = {"precision": "f32", "context": 512, **keys}
    engine = TransformersEngine(LocalModel(engine="transformers", source=str(folder), **keys), folder)
    return engine, engine.load(lambda _: None)


@pytest.fixture(scope="module")
def speaking() -> Iterator[TransformersEngine]:
    engine, _ = _engine(made("automaton", format="safetensors"))
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def random() -> Iterator[TransformersEngine]:
    engine, _ = _engine(made("random", format="safetensors", family="mistral"))
    yield engine
    engine.close()


def test_the_automaton_says_its_text_and_ends(speaking: TransformersEngine) -> None:
    [events] = finished(speaking, Generate(prompt=PROMPT))
    assert text(events) == TEXT
    assert deltas(events)[-1].finish_reason == "stop"


def test_the_card_tells_sizes_precision_template_and_control_tokens() -> None:
    engine, card = _engine(made("random", format="safetensors"), context=256, parallel=3)
    weights = 2 * 2048 * 256 + 2 * (256 * 256 * 2 + 2 * 256 * 128 + 3 * 256 * 512 + 2 * 256) + 256
    assert card.weights_bytes == weights * 4
    assert card.cache_bytes == 3 * 256 * 2 * 2 * 2 * 64 * 4
    assert (card.precision, card.context, card.rendered, card.device) == ("f32", 256, True, "cpu")
    assert card.template is not None and "im_start" in card.template
    assert set(card.control) == {"<|endoftext|>", "<|im_start|>", "<|im_end|>"}
    engine.close()


def test_bfloat16_halves_the_weights() -> None:
    engine, card = _engine(made("automaton", format="safetensors"), precision="bf16")
    other, full = _engine(made("automaton", format="safetensors"))
    assert (card.precision, card.weights_bytes) == ("bf16", full.weights_bytes // 2)
    [events] = finished(engine, Generate(prompt=PROMPT))
    assert text(events) == TEXT
    engine.close()
    other.close()


def test_a_grammar_binds_a_model_that_would_never_obey(random: TransformersEngine) -> None:
    schema = {
        "type": "object",
        "properties": {"age": {"type": "integer", "minimum": 0, "maximum": 99}, "kind": {"enum": ["cat", "dog"]}},
        "required": ["age", "kind"],
        "additionalProperties": False,
    }
    asked = [
        Generate(prompt=PROMPT, grammar=Grammar("json_schema", json.dumps(schema)), sampling=Sampling(seed=seed))
        for seed in range(3)
    ]
    for events in finished(random, *asked):
        found = json.loads(text(events))
        assert found["kind"] in ("cat", "dog") and 0 <= found["age"] <= 99
        assert deltas(events)[-1].finish_reason == "stop"


def test_company_and_pieces_do_not_change_an_answer(random: TransformersEngine) -> None:
    """The window of 64 acts: prompts are longer, and read in one piece or in many."""
    asked = [Generate(prompt=LETTERS[: 60 * n], max_tokens=12, sampling=Sampling(temperature=0.0)) for n in range(1, 6)]
    alone = [text(finished(random, request)[0]) for request in asked]
    usual, random._rate = random._rate, 0.0
    together = [text(events) for events in finished(random, *asked)]
    random._rate = usual
    assert together == alone


def test_no_more_than_parallel_answers_are_under_way_at_once() -> None:
    engine, _ = _engine(made("random", format="safetensors"), parallel=2)
    for key in range(5):
        engine.submit(key, Generate(prompt="Hello", max_tokens=3, sampling=Sampling(ignore_eos=True)))
    engine.step()
    assert len(engine._running) == 2
    ended = [key for key, event in steps(engine) if is_last(event)]
    assert sorted(ended) == [0, 1, 2, 3, 4]
    engine.close()


def test_a_seed_repeats_an_answer_and_another_one_changes_it(random: TransformersEngine) -> None:
    asked = [Generate(prompt=PROMPT, max_tokens=16, sampling=Sampling(seed=seed)) for seed in (1, 1, 2)]
    first, again, other = (text(events) for events in finished(random, *asked))
    assert first == again != other


def test_logit_bias_and_top_logprobs_are_of_the_raw_logits(speaking: TransformersEngine) -> None:
    bias = {ord("a") - ord("!"): 100.0}  # the alphabet of byte-level BPE begins with "!"
    one = Sampling(temperature=0.0, top_logprobs=3)
    plain, biased = finished(
        speaking,
        Generate(prompt=PROMPT, max_tokens=1, sampling=one),
        Generate(prompt=PROMPT, max_tokens=1, sampling=Sampling(temperature=0.0, top_logprobs=3, logit_bias=bias)),
    )
    [told], [other] = deltas(plain)[0].logprobs, deltas(biased)[0].logprobs
    assert told.token == "Hello" and told.top[0].token == "Hello" and len(told.top) == 3
    assert other.top == told.top and other.token != "Hello" and (other.logprob or 0) < -20


def test_prompt_logprobs_equal_those_of_transformers(random: TransformersEngine) -> None:
    import torch

    asked = Generate(prompt=LETTERS, max_tokens=0, prompt_logprobs=1)
    usual, random._rate = random._rate, 0.0  # many pieces
    scored, last = finished(random, asked)[0]
    random._rate = usual
    assert isinstance(scored, Scored) and isinstance(last, Delta)
    assert (last.text, last.tokens, last.finish_reason) == ("", 0, "length")
    tokens = random._words.encode(LETTERS)
    with torch.inference_mode():
        logits = random._model._model(torch.tensor([tokens])).logits[0]
        expected = logits.log_softmax(-1)[torch.arange(len(tokens) - 1), torch.tensor(tokens[1:])]
    assert scored.tokens[0].logprob is None and "".join(each.token for each in scored.tokens) == LETTERS
    found = [each.logprob for each in scored.tokens[1:]]
    assert np.abs(np.array(found) - expected.numpy()).max() < 1e-3
    assert all(_best(each) >= (each.logprob or 0) - 1e-6 for each in scored.tokens[1:])


def _best(told: TokenLogprob) -> float:
    return told.top[0].logprob or -math.inf


def test_control_tokens_show_only_as_markers(speaking: TransformersEngine) -> None:
    start = speaking._words.tokenizer.token_to_id("<|im_start|>")
    sampling = Sampling(temperature=0.0, logit_bias={start: 200.0})
    hidden, shown = finished(
        speaking,
        Generate(prompt=PROMPT, max_tokens=2, sampling=sampling),
        Generate(prompt=PROMPT, max_tokens=2, sampling=sampling, markers=["<|im_start|>"]),
    )
    assert (text(hidden), text(shown)) == ("", "<|im_start|>" * 2)


def test_cancelling_a_long_prompt_is_heard_within_a_step(random: TransformersEngine) -> None:
    usual, random._rate = random._rate, 0.0
    random.submit(1, Generate(prompt=LETTERS))
    random.submit(2, Generate(prompt=PROMPT, max_tokens=2))
    random.step()
    random.cancel(1)
    assert {key for key, _ in steps(random)} == {2}
    random._rate = usual


@pytest.mark.parametrize(
    ("request_", "fault", "says"),
    [
        (Generate(prompt="word " * 2000), ContextLengthExceeded, "maximum context length is 512"),
        (Generate(prompt=[10**6]), InvalidValue, "out of vocabulary"),
        (Generate(prompt=[]), InvalidValue, "empty"),
        (Generate(prompt="a", sampling=Sampling(logit_bias={10**6: 1.0})), InvalidValue, "vocabulary"),
        (Generate(prompt="a", grammar=Grammar("regex", "(")), InvalidValue, "regular expression"),
    ],
)
def test_a_wrong_request_is_refused_and_nothing_of_it_kept(
    request_: Generate,
    fault: type[Exception],
    says: str,
    speaking: TransformersEngine,
) -> None:
    with pytest.raises(fault, match=says):
        speaking.submit(1, request_)
    assert not speaking.busy


def test_one_answer_s_fault_leaves_the_others_alone(speaking: TransformersEngine) -> None:
    everything = {token: -math.inf for token in range(len(speaking._words.pieces))}
    broken, whole = finished(
        speaking, Generate(prompt=PROMPT, sampling=Sampling(logit_bias=everything)), Generate(prompt=PROMPT)
    )
    assert isinstance(broken[-1], Failed)
    assert text(whole) == TEXT


# ---- folders ------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(made("random", format="safetensors"), tmp_path / "model"))


def _changed(folder: Path, **keys: object) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | keys), encoding="utf-8")


def _cut(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def _no_number(folder: Path) -> None:
    file = folder / "model.safetensors"
    tensors = load_file(file)
    tensors["model.norm.weight"][0] = np.nan
    save_file(tensors, file, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda folder: _changed(folder, model_type="novel"), "model_type 'novel' is not one"),
        (
            lambda folder: _changed(folder, model_type="novel", auto_map={"AutoConfig": "code.Config"}),
            "code that comes with weights is never run",
        ),
        (lambda folder: (folder / "config.json").write_text("{", encoding="utf-8"), "config.json"),
        (lambda folder: (folder / "config.json").write_text("[]", encoding="utf-8"), "JSON object"),
        (_no_number, "model: corrupt: it computes values that are not numbers"),
        (_cut, "model: transformers .* cannot read it"),
        (lambda folder: _changed(folder, num_hidden_layers=3), r"tensor model\.layers\.2\.\S+ is missing"),
        (lambda folder: _changed(folder, intermediate_size=384), "down_proj.weight is of another size|cannot read"),
        (lambda folder: _changed(folder, hidden_act="novel"), "cannot read it"),
        (lambda folder: (folder / "model.safetensors").unlink(), "cannot read it"),
        (lambda folder: (folder / "tokenizer.json").write_text("{}", encoding="utf-8"), "tokenizer.json"),
    ],
)
def test_a_folder_that_cannot_be_read_is_named_with_the_reason(spoil: object, says: str, folder: Path) -> None:

    engine = TransformersEngine(LocalModel(engine="transformers", source=str(folder)), folder)
    spoil(folder)  # type: ignore[operator]
    with pytest.raises(ValueError, match=says) as refused:
        engine.load(lambda _: None)
    assert str(folder) in str(refused.value)


def test_a_context_beyond_the_model_s_own_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="reads 4096 tokens, and the recipe's context is 8192"):
        _engine(folder, context=8192)


# ---- other architectures ------------------------------------------------------------------------------------------


def _saved(folder: Path, config: object) -> None:
    """Random weights of an architecture that no other engine of ours computes, and GPT-2's own files of a tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    described = json.loads((made("automaton", format="safetensors") / "tokenizer.json").read_text(encoding="utf-8"))
    words = described["model"]["vocab"] | {each["content"]: each["id"] for each in described["added_tokens"]}
    merges = [" ".join(each) if isinstance(each, list) else each for each in described["model"]["merges"]]
    (folder / "vocab.json").write_text(json.dumps(words), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]), encoding="utf-8")
    settings = {"tokenizer_class": "GPT2Tokenizer", "eos_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")


def _size() -> int:
    file = made("automaton", format="safetensors") / "config.json"
    return int(json.loads(file.read_text(encoding="utf-8"))["vocab_size"])


_SIZES = {
    "gpt2": {"n_positions": 256, "n_embd": 64, "n_layer": 2, "n_head": 4},
    "mamba": {"hidden_size": 64, "num_hidden_layers": 2, "state_size": 8},  # no keys and values: a state
}


@pytest.mark.parametrize("kind", _SIZES)
def test_an_architecture_of_its_library_alone_says_what_it_generates_there(kind: str, tmp_path: Path) -> None:
    import torch
    import transformers

    _saved(tmp_path, transformers.AutoConfig.for_model(kind, vocab_size=_size(), **_SIZES[kind]))
    engine, card = _engine(tmp_path, context=256)
    assert card.description == f"A {kind} model, computed by transformers."
    prompts = ["Hello this is", "a very small model made for tests"]
    asked = [
        Generate(prompt=each, max_tokens=20, sampling=Sampling(temperature=0.0, top_logprobs=0)) for each in prompts
    ]
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    for prompt, events in zip(prompts, finished(engine, *asked), strict=True):
        tokens = engine._words.encode(prompt)
        expected = model.generate(
            torch.tensor([tokens]), attention_mask=torch.ones(1, len(tokens)), max_new_tokens=20, do_sample=False
        )[0, len(tokens) :].tolist()
        said = [each.data for delta in deltas(events) for each in delta.logprobs]
        assert said == [engine._words.bytes_of(token) for token in expected][: len(said)] and said
        assert len(said) == 20 or expected[len(said)] in engine._words.ends
    engine.close()


def test_an_architecture_that_remembers_nothing_is_refused(tmp_path: Path) -> None:
    import transformers

    _saved(tmp_path, transformers.OpenAIGPTConfig(vocab_size=_size(), n_positions=64, n_embd=64, n_layer=1, n_head=4))
    with pytest.raises(ValueError, match="a openai-gpt model keeps nothing of what it has read"):
        _engine(tmp_path, context=64)
