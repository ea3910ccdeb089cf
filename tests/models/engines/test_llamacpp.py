"""The engine over llama.cpp, with the real package: what it says, what it keeps of a request, and its faults."""

import http.client
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from config.model import LocalModel
from server.errors import ContextLengthExceeded, InvalidValue, UnsupportedParameter
from server.models.engine import Card, Delta, Generate, Grammar, Sampling, is_last
from server.models.engines.llamacpp.engine import LlamaCppEngine
from tests.making import TEXT, made
from tests.models.engines.driving import deltas, finished, steps, text
from tests.models.engines.test_compiling import BOMBS

PROMPT = "<|im_start|>user\nHello?<|im_end|>\n<|im_start|>assistant\n"
GREEDY = Sampling(temperature=0.0)
OBJECT = (
    '{"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": false}'
)


def spec(file: Path, **keys: Any) -> LocalModel:
    told = {"engine": "llamacpp", "source": str(file), "context": 512, "threads": 2, **keys}
    return LocalModel.model_validate(told, context={})


def loaded(file: Path, data: Path, **keys: Any) -> tuple[LlamaCppEngine, Card]:
    engine = LlamaCppEngine(spec(file, **keys), file, data / "cache")
    return engine, engine.load(lambda _: None)


@pytest.fixture(scope="module")
def automaton() -> Path:
    return made("automaton", quant="f16")


@pytest.fixture(scope="module")
def random() -> Path:
    return made("random", family="qwen3", quant="q8_0")


@pytest.fixture(scope="module")
def engine(automaton: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    ready, _ = loaded(automaton, tmp_path_factory.mktemp("data"), parallel=4, cache_tokens=2048)
    yield ready
    ready.close()


@pytest.fixture(scope="module")
def guessing(random: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    ready, _ = loaded(random, tmp_path_factory.mktemp("data"), parallel=4, cache_tokens=2048)
    yield ready
    ready.close()


def asked(sampling: Sampling = GREEDY, prompt: str = PROMPT, **keys: Any) -> Generate:
    return Generate(prompt=prompt, sampling=sampling, **keys)


def test_the_card_tells_what_the_file_says_and_what_is_kept(automaton: Path, tmp_path: Path) -> None:
    engine, card = loaded(automaton, tmp_path, cache="q8", cache_tokens=1024)
    assert card.rendered
    assert card.template is not None and "<|im_start|>" in card.template
    assert card.special["eos_token"] == "<|im_end|>"
    assert set(card.control) == {"<|endoftext|>", "<|im_start|>", "<|im_end|>"}
    assert card.weights_bytes == automaton.stat().st_size
    assert card.cache_bytes > 0
    [events] = finished(engine, asked())
    assert text(events) == TEXT
    engine.close()


@pytest.mark.parametrize("cache", ["auto", "f32", "bf16", "q8"])
def test_keys_and_values_of_every_kind_say_the_same_text(cache: str, automaton: Path, tmp_path: Path) -> None:
    engine, _ = loaded(automaton, tmp_path, cache=cache)
    [events] = finished(engine, asked())
    assert text(events) == TEXT
    engine.close()


def test_the_text_ends_by_itself_and_every_token_of_it_counts(engine: LlamaCppEngine) -> None:
    [events] = finished(engine, asked())
    assert text(events) == TEXT
    assert deltas(events)[-1].finish_reason == "stop"
    assert sum(delta.tokens for delta in deltas(events)) == len(deltas(events)) - 1


def test_an_answer_at_its_limit_says_length(engine: LlamaCppEngine) -> None:
    [events] = finished(engine, asked(max_tokens=3))
    assert sum(delta.tokens for delta in deltas(events)) == 3
    assert deltas(events)[-1].finish_reason == "length"


def test_an_answer_of_no_tokens_says_nothing(engine: LlamaCppEngine) -> None:
    assert finished(engine, asked(max_tokens=0)) == [[Delta(finish_reason="length")]]


def test_what_was_computed_before_is_told_in_the_first_delta_alone(engine: LlamaCppEngine) -> None:
    prompt = PROMPT.replace("Hello?", "Something that nobody asked for before, at some length.")
    [first] = finished(engine, asked(prompt=prompt))
    [second] = finished(engine, asked(prompt=prompt))
    assert deltas(first)[0].cached_tokens < deltas(second)[0].cached_tokens
    assert [delta.cached_tokens for delta in deltas(second)[1:]] == [0] * (len(deltas(second)) - 1)


def test_a_seed_repeats_an_answer_and_another_gives_another(guessing: LlamaCppEngine) -> None:
    def said(seed: int) -> str:
        [events] = finished(guessing, asked(Sampling(temperature=1.0, seed=seed), max_tokens=24))
        return text(events)

    assert said(1) == said(1)
    assert said(1) != said(2)


def test_log_probabilities_come_for_each_token_with_alternatives(guessing: LlamaCppEngine) -> None:
    prompt = asked(Sampling(temperature=0.0, top_logprobs=3), max_tokens=1)
    [events] = finished(guessing, prompt)
    [told] = [each for delta in deltas(events) for each in delta.logprobs]
    assert told.logprob is not None and told.logprob < 0
    assert len(told.top) == 3
    assert told.top[0].data == told.data
    assert [each.logprob for each in told.top] == sorted((each.logprob or 0 for each in told.top), reverse=True)


def test_a_biased_token_is_the_one_that_is_said(engine: LlamaCppEngine) -> None:
    [prompt] = [engine._metadata.tokens.index("z")]
    [events] = finished(engine, asked(Sampling(temperature=0.0, logit_bias={prompt: 100.0}), max_tokens=1))
    assert text(events) == "z"


def test_a_repetition_penalty_changes_what_repeats(guessing: LlamaCppEngine) -> None:
    def said(penalty: float) -> str:
        [events] = finished(guessing, asked(Sampling(temperature=0.0, repetition_penalty=penalty), max_tokens=40))
        return text(events)

    assert said(1.0) != said(2.0)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_schema_binds_weights_that_would_never_obey(temperature: float, guessing: LlamaCppEngine) -> None:
    wanted = Grammar("json_schema", OBJECT)
    biased = Sampling(temperature=temperature, seed=5)
    [events] = finished(guessing, asked(biased, grammar=wanted, max_tokens=200))
    if deltas(events)[-1].finish_reason == "stop":
        assert set(msgspec.json.decode(text(events))) == {"a"}
    else:
        assert text(events).startswith('{"a":')


@pytest.mark.parametrize(
    ("grammar", "said"),
    [
        (Grammar("json_schema", OBJECT), '{"a":0}'),
        (Grammar("regex", "[xy]{2}z"), None),
        (Grammar("lark", 'start: "Hello" " this"'), "Hello this"),
    ],
)
def test_grammars_of_every_kind_are_followed(grammar: Grammar, said: str | None, engine: LlamaCppEngine) -> None:
    [events] = finished(engine, asked(grammar=grammar))
    assert deltas(events)[-1].finish_reason == "stop"
    assert said is None or text(events) == said
    assert said is not None or text(events) in {"xxz", "xyz", "yxz", "yyz"}


@pytest.mark.parametrize(
    "grammar",
    [Grammar("json_schema", '{"type": "nonsense"}'), Grammar("regex", "("), Grammar("lark", "start: nowhere")],
)
def test_a_grammar_that_does_not_compile_is_refused_by_its_field(grammar: Grammar, engine: LlamaCppEngine) -> None:
    with pytest.raises(InvalidValue) as refused:
        engine.submit(1, asked(grammar=grammar))
    assert refused.value.param == "response_format"
    assert not engine.busy


@pytest.mark.parametrize("bomb", BOMBS, ids=lambda bomb: bomb.kind)
def test_a_grammar_deep_enough_to_use_up_a_stack_ends_no_worker(bomb: Grammar, engine: LlamaCppEngine) -> None:
    """llama.cpp compiles it once more, in a thread of its own."""
    [events] = finished(engine, asked(grammar=bomb, max_tokens=2))
    assert is_last(events[-1])
    with pytest.raises(InvalidValue, match="characters"):
        engine.submit(1, asked(grammar=Grammar(bomb.kind, bomb.text + " " * 2**18)))
    with pytest.raises(InvalidValue, match="nested too deeply"):
        engine.submit(1, asked(grammar=Grammar("json_schema", '{"items":' * 5000 + "{}" + "}" * 5000)))
    [events] = finished(engine, asked())
    assert text(events) == TEXT


def test_a_control_token_shows_where_it_is_a_marker(engine: LlamaCppEngine) -> None:
    wanted = Grammar("lark", 'start: "H" <|im_start|> "a"')
    [hidden] = finished(engine, asked(grammar=wanted))
    [shown] = finished(engine, asked(grammar=wanted, markers=["<|im_start|>", "<tool_call>"]))
    assert text(hidden) == "Ha"
    assert text(shown) == "H<|im_start|>a"


def test_prompt_logprobs_are_refused(engine: LlamaCppEngine) -> None:
    with pytest.raises(UnsupportedParameter, match="prompt_logprobs"):
        engine.submit(1, asked(prompt_logprobs=0))


@pytest.mark.parametrize("tokens", [[-1], [10**6]])
def test_foreign_tokens_are_refused(tokens: list[int], engine: LlamaCppEngine) -> None:
    with pytest.raises(InvalidValue, match="vocabulary"):
        engine.submit(1, Generate(prompt=tokens))


def test_a_prompt_of_tokens_is_taken_as_it_is(engine: LlamaCppEngine) -> None:
    ids = engine._tokens(PROMPT)
    [events] = finished(engine, Generate(prompt=ids, sampling=GREEDY))
    assert text(events) == TEXT


def test_a_cancelled_prompt_is_not_read_to_its_end(guessing: LlamaCppEngine) -> None:
    """Its thread ends long before the answer would: the next request finds the room it had reserved."""
    long = asked(prompt="word " * 400)
    guessing.submit(1, long)
    running = guessing._running[1]
    guessing.cancel(1)
    finished(guessing, asked(max_tokens=2))
    assert running.answer._counted < 50


def test_more_than_the_memory_holds_waits_and_is_answered(automaton: Path, tmp_path: Path) -> None:
    engine, _ = loaded(automaton, tmp_path, parallel=8, cache_tokens=512)
    answers = finished(engine, *[asked()] * 5)
    assert [text(events) for events in answers] == [TEXT] * 5
    engine.close()


def test_cancelling_what_waits_lets_the_next_one_start(automaton: Path, tmp_path: Path) -> None:
    engine, _ = loaded(automaton, tmp_path, parallel=1)
    for key in range(3):
        engine.submit(key, asked())
    engine.cancel(0)
    engine.cancel(1)
    events = [event for key, event in steps(engine) if key == 2]
    assert text(events) == TEXT
    engine.close()


def test_the_port_is_on_loopback_and_asks_for_its_key(engine: LlamaCppEngine) -> None:
    assert engine._server.listening_address.startswith("http://127.0.0.1:")
    connection = http.client.HTTPConnection("127.0.0.1", engine._port.number, timeout=30)
    connection.request("POST", "/tokenize", '{"content": "a"}', {"Content-Type": "application/json"})
    assert connection.getresponse().status == http.client.UNAUTHORIZED
    connection.close()


def test_the_context_is_never_longer_than_that_of_training(automaton: Path, tmp_path: Path) -> None:
    raw = automaton.read_bytes()
    at = raw.index(b"llama.context_length") + len(b"llama.context_length") + 4
    file = tmp_path / "short.gguf"
    file.write_bytes(raw[:at] + (256).to_bytes(4, "little") + raw[at + 4 :])
    engine, card = loaded(file, tmp_path)
    assert card.context == 256
    with pytest.raises(ContextLengthExceeded, match="256 tokens"):
        engine.submit(1, asked(prompt="word " * 400))
    engine.close()


@pytest.mark.parametrize(("key", "value"), [("draft", "ngram"), ("precision", "f32")])
def test_what_it_cannot_do_is_refused_by_name(key: str, value: str, automaton: Path, tmp_path: Path) -> None:
    told = spec(automaton).model_copy(update={key: value})
    with pytest.raises(ValueError, match=f"takes no {key}") as refused:
        LlamaCppEngine(told, automaton, tmp_path / "cache").load(lambda _: None)
    assert str(automaton) in str(refused.value)


def _cut(raw: bytes) -> bytes:
    return raw[: len(raw) * 2 // 3]


def _foreign(raw: bytes) -> bytes:
    return raw.replace(b"\x05\0\0\0\0\0\0\0llama", b"\x05\0\0\0\0\0\0\0lxama")


def _no_number(raw: bytes) -> bytes:
    return raw[:-4] + b"\xff" * 4


def _half_a_norm(raw: bytes) -> bytes:
    """Says of a tensor that it is half as long as it is."""
    name = b"blk.0.attn_norm.weight"
    at = raw.index(name) + len(name) + 4
    return raw[:at] + (int.from_bytes(raw[at : at + 8], "little") // 2).to_bytes(8, "little") + raw[at + 8 :]


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        (_cut, "cut off or corrupt: the tensor"),
        (lambda raw: raw[:3000], "not a whole GGUF file"),
        (lambda raw: b"nothing of the kind", "does not begin with GGUF"),
        (_foreign, "unknown model architecture: 'lxama'"),
        (lambda raw: raw.replace(b"output_norm.weight", b"output_nerm.weight"), "'output_norm.weight' not found"),
        (_no_number, "tensor '.*' has invalid data"),
        (_half_a_norm, "tensor '.*' has offset"),
    ],
    ids=["cut off", "in its metadata", "another kind", "architecture", "a tensor is missing", "no number", "shape"],
)
def test_a_file_that_cannot_be_used_is_named_with_the_reason(
    broken: Any, why: str, automaton: Path, tmp_path: Path, engine: LlamaCppEngine
) -> None:
    file = tmp_path / "broken.gguf"
    file.write_bytes(broken(automaton.read_bytes()))
    with pytest.raises(ValueError, match=why) as refused:
        loaded(file, tmp_path)
    assert str(file) in str(refused.value)
    [events] = finished(engine, asked())  # the process lives on
    assert text(events) == TEXT


def test_a_build_of_this_machine_comes_first_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from server.models import native

    place = native.place(native.home(tmp_path), native.version() or "")
    place.mkdir(parents=True)
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert native.found(native.home(tmp_path)) is None
    (place / native.MARK).write_text('{"grammars": false}', encoding="utf-8")
    built = native.found(native.home(tmp_path))
    assert built == native.Built(place, grammars=False)
    native.prefer(built)
    assert sys.path[0] == str(place)


def test_a_build_without_grammars_refuses_them_and_says_so_on_its_card(
    automaton: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from server.models import native

    place = native.place(native.home(tmp_path), native.version() or "")
    place.mkdir(parents=True)
    (place / native.MARK).write_text('{"grammars": false}', encoding="utf-8")
    monkeypatch.setattr(sys, "path", [*sys.path])
    engine, card = loaded(automaton, tmp_path)
    assert not card.honours & {"response_format", "tools", "tool_choice", "grammar"}
    with pytest.raises(UnsupportedParameter, match="hearth engines build llamacpp"):
        engine.submit(1, asked(grammar=Grammar("regex", "a")))
    with pytest.raises(ContextLengthExceeded):
        engine.submit(2, asked(prompt="word " * 3000))
    engine.close()
