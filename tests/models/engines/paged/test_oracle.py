"""The paged engine beside transformers, over the same random folders: logits, tokens and rendered conversations."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from server.models.engine import Message, ToolCall
from server.models.engines.paged.engine import read
from server.models.engines.paged.runtime import Decoder
from server.models.engines.paged.span import Span
from server.models.engines.paged.weights import Int8, quantised
from server.models.engines.sampling.vocabulary import Vocabulary
from server.models.template import ChatTemplate
from tests.making import made
from tests.making.oracle import needs_torch

pytestmark = needs_torch

CASES = ["llama", "llama with llama3 rope", "qwen2", "qwen3", "mistral"]
LENGTHS = (7, 31, 64, 100, 200)
"""The longer ones are beyond mistral's window of 64, and span several pages."""
PIECE = 23
_POOL = 1024

Rows = NDArray[np.float32]


@cache
def _folder(case: str) -> Path:
    return made("random", format="safetensors", family=case.split()[0], rope_scaling="rope" in case)


def _prompts() -> list[list[int]]:
    random = np.random.default_rng(7)
    return [random.integers(0, 1500, length).tolist() for length in LENGTHS]


def _computed(folder: Path, change: Callable[[Any], None] = lambda _: None) -> list[Rows]:
    """What transformers computes of each prompt alone, in one piece and without a cache: f32 [length, vocabulary]."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()
    change(model)
    with torch.inference_mode():
        return [model(torch.tensor([prompt]), use_cache=False).logits[0].numpy() for prompt in _prompts()]


@cache
def _expected(case: str) -> list[Rows]:
    return _computed(_folder(case))


@dataclass
class _Paged:
    """Prompts over pages of one pool; every prompt has pages of its own, in no order."""

    decoder: Decoder

    def __post_init__(self) -> None:
        size = self.decoder.page_size
        free = np.random.default_rng(3).permutation(self.decoder.pages).tolist()
        self.pages = [[free.pop() for _ in range(-(-length // size))] for length in LENGTHS]

    def batched(self, prompts: list[list[int]]) -> list[Rows]:
        """All prompts in one computation."""
        spans = [Span(prompt, 0, pages, len(prompt)) for prompt, pages in zip(prompts, self.pages, strict=True)]
        rows = self.decoder.compute(spans).copy()
        return np.split(rows, np.cumsum([len(prompt) for prompt in prompts])[:-1])

    def in_pieces(self, prompts: list[list[int]]) -> list[Rows]:
        """A piece of every prompt at a time, until the longest is read."""
        found: list[list[Rows]] = [[] for _ in prompts]
        for past in range(0, max(LENGTHS), PIECE):
            at = [number for number, prompt in enumerate(prompts) if len(prompt) > past]
            pieces = [prompts[number][past : past + PIECE] for number in at]
            spans = [
                Span(piece, past, self.pages[number], len(piece)) for number, piece in zip(at, pieces, strict=True)
            ]
            rows = self.decoder.compute(spans).copy()
            parts = np.split(rows, np.cumsum([len(piece) for piece in pieces])[:-1])
            for number, part in zip(at, parts, strict=True):
                found[number].append(part)
        return [np.concatenate(each) for each in found]


def _paged(folder: Path, *, keep_floats: bool) -> _Paged:
    weights, _ = read(folder, keep_floats=keep_floats)
    return _Paged(Decoder(weights, tokens=_POOL, precision="f32", threads=None))


@pytest.mark.parametrize("case", CASES)
def test_float32_logits_equal_those_of_transformers_batched_and_in_pieces(case: str) -> None:
    paged, expected = _paged(_folder(case), keep_floats=True), _expected(case)
    for found in (paged.batched(_prompts()), paged.in_pieces(_prompts())):
        apart = [float(np.abs(rows - wanted).max()) for rows, wanted in zip(found, expected, strict=True)]
        assert max(apart) <= 1e-3, apart


@pytest.mark.parametrize("case", CASES)
def test_eight_bit_logits_are_those_of_transformers_over_weights_rounded_alike(case: str) -> None:
    found, expected = _paged(_folder(case), keep_floats=False).batched(_prompts()), _computed(_folder(case), _rounded)
    apart = [float(np.abs(rows - wanted).max()) for rows, wanted in zip(found, expected, strict=True)]
    assert max(apart) <= 1e-3, apart


@pytest.mark.parametrize("case", CASES)
def test_eight_bit_logits_point_where_those_of_transformers_do(case: str, tmp_path: Path) -> None:
    """Over weights of the usual spread: those of `made` are wider, so that faults show, and amplify rounding too."""
    folder = _calm(_folder(case), tmp_path / "calm")
    found, expected = _paged(folder, keep_floats=False).batched(_prompts()), _computed(folder)
    cosines = [_cosine(rows, wanted) for rows, wanted in zip(found, expected, strict=True)]
    assert min(cosines) >= 0.999, cosines


def _rounded(model: Any) -> None:
    """Round a model's matrices to eight bits and back, as the paged engine does on the way in."""
    import torch

    for each in model.modules():
        if isinstance(each, torch.nn.Linear | torch.nn.Embedding):
            matrix = quantised(each.weight.detach().numpy())
            assert isinstance(matrix, Int8)
            values = matrix.values.astype(np.float32) * matrix.scales.astype(np.float32)
            each.weight.data = torch.from_numpy(values.reshape(each.weight.shape))


def _calm(folder: Path, copy: Path) -> Path:
    shutil.copytree(folder, copy)
    tensors = load_file(copy / "model.safetensors")
    for name, values in tensors.items():
        part = name.rsplit(".", 2)[-2]
        tensors[name] = values / {"q_proj": 2, "k_proj": 2, "o_proj": 4, "down_proj": 4}.get(part, 1)
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    return copy


def _cosine(one: Rows, other: Rows) -> float:
    return float((one * other).sum() / (np.linalg.norm(one) * np.linalg.norm(other)))


def test_the_window_and_the_rope_s_scaling_are_part_of_what_is_compared() -> None:
    """Else the cases above would prove less than they say."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    for case, changed in (("mistral", {"sliding_window": None}), ("llama with llama3 rope", {"rope_scaling": None})):
        config = AutoConfig.from_pretrained(_folder(case), local_files_only=True)
        for name, value in changed.items():
            if name == "rope_scaling":
                value = {"rope_type": "default", "rope_theta": config.rope_parameters["rope_theta"]}
                name = "rope_parameters"
            setattr(config, name, value)
        model = AutoModelForCausalLM.from_pretrained(
            _folder(case), config=config, dtype=torch.float32, local_files_only=True
        ).eval()
        with torch.inference_mode():
            other = model(torch.tensor([_prompts()[-1]]), use_cache=False).logits[0].numpy()
        assert np.abs(other - _expected(case)[-1]).max() > 0.1, case


# ---- tokens and templates ------------------------------------------------------------------------------------------

TEXTS = [
    "",
    " ",
    "Hello, world!",
    "  two spaces\n\n\tand a tab ",
    "Don't we'll they've I'M",
    "12345 6.78e-9 2026-11-24",
    "naïve café – “quotes” … Ωμέγα",
    "漢字かな交じり文と한국어",
    "👩‍👩‍👧‍👦 🏳️‍🌈",
    "def f(x):\n    return {'a': [1, 2]}  # note\r\n",
    "<|im_start|>user\nHi<|im_end|>\n",
    "text <|endoftext|> text<|im_end|>",
    "<|im_start",
]

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a place, with 'quotes' & <signs>.",
        "parameters": {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]},
    },
}
CLOCK = {"type": "function", "function": {"name": "clock", "description": "What time it is.", "parameters": {}}}


@pytest.fixture(scope="module", params=CASES)
def words(request: pytest.FixtureRequest) -> Iterator[tuple[Vocabulary, Any]]:
    """Ours and theirs."""
    from transformers import AutoTokenizer

    _, ours = read(_folder(request.param), keep_floats=True)
    yield ours, AutoTokenizer.from_pretrained(_folder(request.param), local_files_only=True)


def test_texts_are_the_tokens_they_are_to_transformers(words: tuple[Vocabulary, Any]) -> None:
    ours, theirs = words
    assert [ours.encode(text) for text in TEXTS] == [theirs.encode(text, add_special_tokens=False) for text in TEXTS]


def test_tokens_are_the_bytes_they_are_to_transformers(words: tuple[Vocabulary, Any]) -> None:
    ours, theirs = words
    for text in TEXTS:
        tokens = ours.encode(text)
        ours_said = b"".join(ours.bytes_of(token) for token in tokens).decode()
        assert ours_said == theirs.decode(tokens, clean_up_tokenization_spaces=False) == text


def test_an_answer_ends_where_transformers_ends_it(words: tuple[Vocabulary, Any]) -> None:
    from transformers import GenerationConfig

    ours, theirs = words
    told = GenerationConfig.from_pretrained(theirs.name_or_path, local_files_only=True).eos_token_id
    assert set(ours.ends) == set(told)


CONVERSATIONS: dict[str, list[Message]] = {
    "one question": [Message("user", "Hello?")],
    "with a system message": [Message("system", "Be kind.\n"), Message("user", "  Hi  ")],
    "several turns": [Message("user", "One"), Message("assistant", "Two"), Message("user", "Three <b>&amp;</b>")],
    "a call and its answer": [
        Message("system", "Use tools."),
        Message("user", "Weather in Zürich and the time?"),
        Message(
            "assistant",
            "",
            tool_calls=[ToolCall("1", "weather", '{"place": "Zürich", "days": 2}'), ToolCall("2", "clock", "{}")],
        ),
        Message("tool", "7 °C", tool_call_id="1"),
        Message("tool", "noon", tool_call_id="2"),
        Message("user", "Thanks"),
    ],
    "text beside a call": [
        Message("user", "And?"),
        Message("assistant", "Let me look.", tool_calls=[ToolCall("1", "clock", "{}")]),
        Message("tool", '{"time": "12:00"}', tool_call_id="1"),
    ],
}


@pytest.mark.parametrize("tools", [None, [WEATHER], [WEATHER, CLOCK]], ids=["no tools", "a tool", "two tools"])
@pytest.mark.parametrize("options", [{}, {"enable_thinking": False}], ids=["plain", "no thinking"])
@pytest.mark.parametrize("said", CONVERSATIONS)
def test_a_conversation_is_rendered_as_transformers_renders_it(
    said: str, options: dict[str, Any], tools: list[dict[str, Any]] | None
) -> None:
    from transformers import AutoTokenizer

    folder = _folder("qwen3")
    _, ours = read(folder, keep_floats=True)
    assert ours.template is not None
    messages = CONVERSATIONS[said]
    found = ChatTemplate(ours.template, ours.special).render(messages, tools, **options)
    theirs = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    wanted = theirs.apply_chat_template(
        [_turn(message) for message in messages], tools=tools, tokenize=False, add_generation_prompt=True, **options
    )
    assert found == wanted
    assert ours.encode(found) == theirs.encode(wanted, add_special_tokens=False)


def _turn(message: Message) -> dict[str, Any]:
    """As a client of transformers writes it, arguments as objects."""
    turn: dict[str, Any] = {"role": message.role, "content": message.text}
    if message.tool_calls:
        turn["tool_calls"] = [
            {"type": "function", "function": {"name": call.name, "arguments": json.loads(call.arguments)}}
            for call in message.tool_calls
        ]
    return turn
