"""What an engine is: the protocol every engine passes, and the values that cross the worker's socket.

An engine lives in a worker process and is synchronous. One thread, its owner, calls every method; nobody else does.
It knows nothing of HTTP, recipes' other sections, asyncio or processes.
"""

from collections.abc import Callable, Iterable
from typing import Any, Protocol

import msgspec

from server.errors import HearthError, InvalidValue
from server.models.infill import Infill
from server.models.prompts import Side
from server.models.tool_formats.pieces import ToolSpec


class ToolCall(msgspec.Struct, frozen=True):
    """A call the model made earlier in the conversation; `arguments` is JSON as text."""

    id: str
    name: str
    arguments: str


class Message(msgspec.Struct, frozen=True, omit_defaults=True):
    """One turn of the conversation; `role` is system, user, assistant or tool.

    `tool_calls` stand in an assistant's turn, `tool_call_id` in the answer to one. `reasoning` is what an assistant
    thought before it spoke.
    """

    role: str
    text: str
    name: str | None = None
    tool_calls: list[ToolCall] = []
    tool_call_id: str | None = None
    reasoning: str | None = None
    parts: list[dict[str, Any]] | None = None
    """The content part by part, in OpenAI's form, where there is more than text: for models that honour `parts`."""
    origins: list[str] = []
    """The client's field of each of `parts`, for faults, where that is not messages[N].content[M]."""


class Passage(msgspec.Struct, frozen=True):
    """A piece of knowledge found for this turn. `source` is what a person would recognise: a file name and heading."""

    text: str
    source: str
    score: float
    """0 to 1, higher is nearer."""


class Sampling(msgspec.Struct, frozen=True, omit_defaults=True):
    """How tokens are chosen; the defaults are neutral, OpenAI's own.

    Order: logit_bias, grammar, penalties, temperature, top_k, top_p, min_p. Temperature 0 takes the likeliest token.
    An answer ends before a token of `stop_token_ids`; before it has `min_tokens` tokens nothing of the model's ends it.
    `top_logprobs` None asks for no log-probabilities, 0 for those of the chosen tokens alone; they are of the raw
    logits, before any of the above. `repetition_penalty` is that of CTRL (arXiv 1909.05858), over prompt and answer.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    logit_bias: dict[int, float] = {}
    top_logprobs: int | None = None
    ignore_eos: bool = False
    min_tokens: int = 0
    stop_token_ids: list[int] = []
    adapter: str | None = None
    """The adapter of the model that computes the answer, by its name in the recipe; None for none."""


class Grammar(msgspec.Struct, frozen=True):
    """What an answer must conform to: `text` in llguidance's dialect of `kind`, json_schema, regex or lark."""

    kind: str
    text: str
    param: str = "response_format"
    """The field of the client's request it comes from, for faults."""


class Image(msgspec.Struct, frozen=True):
    """A picture: `data` is a whole PNG, JPEG, WebP or GIF file, which nobody has looked into yet.

    `mark` is the text that stands for it in the prompt, once; `most` are the pixels its longer side is scaled down to;
    `param` is the field of the client's request it comes from, for faults.
    """

    data: bytes
    mark: str
    most: int
    param: str


class Generate(msgspec.Struct, frozen=True, omit_defaults=True, tag="generate"):
    """Answer a conversation. `max_tokens` None means as many as the context leaves.

    `passages` is None where no knowledge is attached, and empty where some is but nothing was found. `prompt` is the
    conversation as the model's own template renders it, or token ids; None for engines without a template. With
    `max_tokens` 0 the prompt is read and nothing said.
    """

    messages: list[Message] = []
    passages: list[Passage] | None = None
    max_tokens: int | None = None
    prompt: str | list[int] | None = None
    sampling: Sampling = Sampling()
    grammar: Grammar | None = None
    prompt_logprobs: int | None = None
    """Where set, a Scored event tells how likely each token of the prompt was, with that many alternatives."""
    markers: list[str] = []
    """Texts that show in the answer although they are control tokens: a tool format reads them."""
    token_ids: bool = False
    """Whether the ids of the prompt's and the answer's tokens are told."""
    tools: list[ToolSpec] = []
    """Functions that may be called, for engines without a template; a prompt tells the others of them."""
    must_call: bool = False
    """Whether one of `tools` is to be called whatever is asked."""
    images: list[Image] = []
    """The pictures of a rendered prompt, in any order: for models that honour `images`."""


class Embed(msgspec.Struct, frozen=True, tag="embed"):
    """One vector per input, in order: `texts`, or else `tokens`, the model's own ids without special ones.

    `side` says what they are to a search, for models that want other words before a query than before a document.
    """

    texts: list[str] | None = None
    tokens: list[list[int]] | None = None
    side: Side | None = None


class Rerank(msgspec.Struct, frozen=True, tag="rerank"):
    """How well each of `documents` answers `query`."""

    query: str
    documents: list[str]


Request = Generate | Embed | Rerank


class Tokenize(msgspec.Struct, frozen=True, tag="tokenize"):
    """`text` as this model's token ids. `add_special` puts around it what the model puts around a bare text, as a
    prompt is read; `parse_special` reads control tokens' texts as these tokens, else as letters.

    With `pieces` the bytes of each token are told too.
    """

    text: str
    add_special: bool = True
    parse_special: bool = True
    pieces: bool = False


class Detokenize(msgspec.Struct, frozen=True, tag="detokenize"):
    """What token ids say, control tokens by their texts."""

    tokens: list[int]


class Count(msgspec.Struct, frozen=True, tag="count"):
    """How many tokens of prompt this request would have: exactly what Admitted would tell."""

    request: Generate


Lookup = Tokenize | Detokenize | Count
"""What is answered at once with one event, beside the requests that wait for their turn."""


class Admitted(msgspec.Struct, frozen=True, omit_defaults=True, tag="admitted"):
    """First event of every request: it was valid and waits for its turn. Sent before any heavy work is done.

    `ids` are the prompt's tokens, for a request with `token_ids`.
    """

    prompt_tokens: int
    ids: list[int] = []


class Citation(msgspec.Struct, frozen=True):
    """`start`:`end` are characters of the whole answer; `passage` indexes the request's passages.

    `quote_start`:`quote_end` are characters of that passage's text, and so are `answer_start`:`answer_end`, the words
    of the quote that answer; None where the engine does not tell them apart.
    """

    passage: int
    start: int
    end: int
    quote_start: int
    quote_end: int
    answer_start: int | None = None
    answer_end: int | None = None


class TokenLogprob(msgspec.Struct, frozen=True):
    """`token` is its text (U+FFFD where it is no whole character), `data` its bytes.

    `logprob` is None for a prompt's first token, which follows nothing.
    """

    token: str
    data: bytes
    logprob: float | None
    top: list["TokenLogprob"] = []


class Scored(msgspec.Struct, frozen=True, tag="scored"):
    """The tokens of the prompt in order; comes before the first Delta of a request with `prompt_logprobs`."""

    tokens: list[TokenLogprob]


class Delta(msgspec.Struct, frozen=True, omit_defaults=True, tag="delta"):
    """What one step added to one answer. The last one carries `finish_reason`: "stop" or "length".

    `text` is whole characters only. `logprobs` holds one entry for each of `tokens` where they were asked for.
    `cached_tokens` stands in an answer's first Delta: how many of the prompt's tokens had been computed before.
    """

    text: str = ""
    tokens: int = 0
    cached_tokens: int = 0
    citations: list[Citation] = []
    finish_reason: str | None = None
    logprobs: list[TokenLogprob] = []
    ids: list[int] = []
    """Of each of `tokens`, for a request with `token_ids`."""
    call: ToolCall | None = None
    """A call by an engine without a template; the others write theirs into the text, in their models' format."""
    refusal: bool = False
    """Whether `text` says why there is no answer of the form that was wanted."""


class Vectors(msgspec.Struct, frozen=True, tag="vectors"):
    """Rows `indices` of an Embed request: `data` is little-endian float32, len(indices) x dimension, unit length.

    Rows may come in any order over several events (engines sort by length); `last` is set on the final one.
    """

    indices: list[int]
    data: bytes
    last: bool


class Scores(msgspec.Struct, frozen=True, tag="scores"):
    """Relevance, 0 to 1, of the documents `indices` of a Rerank request; `last` as in Vectors."""

    indices: list[int]
    scores: list[float]
    last: bool


class Tokens(msgspec.Struct, frozen=True, tag="tokens"):
    """Answers Tokenize. `pieces` are the bytes of each of `ids`, empty where they were not asked for."""

    ids: list[int]
    pieces: list[bytes] = []


class Spelled(msgspec.Struct, frozen=True, tag="spelled"):
    """Answers Detokenize; what is no UTF-8 is U+FFFD."""

    text: str


class Counted(msgspec.Struct, frozen=True, tag="counted"):
    """Answers Count."""

    tokens: int


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """This request ended with a fault and will get no further event; `code` is that of the error tree."""

    code: str
    message: str
    param: str | None = None

    @classmethod
    def of(cls, error: HearthError) -> "Failed":
        return cls(error.code, error.message, error.param)


Event = Admitted | Scored | Delta | Vectors | Scores | Tokens | Spelled | Counted | Failed


def is_last(event: Event) -> bool:
    """Whether a request gets nothing more after `event`."""
    match event:
        case Delta(finish_reason=reason):
            return reason is not None
        case Vectors(last=last) | Scores(last=last):
            return last
        case Tokens() | Spelled() | Counted() | Failed():
            return True
        case _:
            return False


def check_tokens(tokens: Iterable[int], size: int, param: str) -> None:
    """Raises InvalidValue, naming the first, where some are not in a vocabulary of `size`."""
    for token in tokens:
        if not 0 <= token < size:
            raise InvalidValue(f"The token id {token} is out of vocabulary: this model has {size} tokens.", param=param)


class Card(msgspec.Struct, frozen=True):
    """What a loaded engine says of itself; published in /v1/models.

    `context` is the longest request in tokens. `task` is "chat", "embed" or "rerank". `dimension` is set for
    embedders. `tokenizer` is the path of a tokenizer.json that counts as the engine counts, None where there is none.
    `honours` names the parameters of the OpenAI request that change this engine's answers, those of `abilities`; the
    gateway names the others in the x-ignored-params header, or refuses them where ignoring would break a promise.
    """

    task: str
    description: str
    context: int
    engine: str = ""
    """Which engine this is, and why it was chosen where the recipe left that open."""
    reason: str | None = None
    dimension: int | None = None
    prompts: dict[str, str] = {}
    """What an embedder puts before a text, by its side, where that is something."""
    tokenizer: str | None = None
    honours: frozenset[str] = frozenset()
    device: str = "cpu"
    precision: str | None = None
    attention: str | None = None
    """What computes attention, where an engine has a choice of several."""
    weights_bytes: int = 0
    cache_bytes: int = 0
    """What weights, and keys and values, take of the memory."""
    rendered: bool = False
    """Whether the engine takes rendered prompts; else it takes messages as they are."""
    template: str | None = None
    """The chat template (Jinja) that renders its prompts; None where the weights bring none."""
    special: dict[str, str] = {}
    """The texts of `bos_token`, `eos_token` and other tokens a template may name."""
    control: dict[str, int] = {}
    """The control tokens by their texts: what a grammar cannot spell letter by letter."""
    family: str = ""
    """The architecture of the weights, such as qwen3; empty for engines without any."""
    identity: str = ""
    """What tells its weights from another model's; empty where the engine does not say."""
    infill: Infill | None = None
    """The tokens it fills in between a prefix and a suffix with; None where its vocabulary has none."""


Progress = Callable[[str], None]
"""Tells the supervisor what loading is at, and that it is alive."""


class Engine(Protocol):
    """Contract: `load` first and once, `close` last and idempotent; every other method only between the two."""

    def load(self, progress: Progress) -> Card:
        """Bring the weights in. Blocks, may take minutes. Raises with a sentence that names the file at fault."""
        ...

    def submit(self, key: int, request: Request) -> Admitted:
        """Queue a request under a key that is free. Does not compute: tokenising and checking only.

        Raises a HearthError where the request cannot be served; the engine then holds nothing of it.
        """
        ...

    def tokenize(self, request: Tokenize) -> Tokens:
        """At once, whatever is queued; changes nothing. Raises RequestError where this engine has no token ids."""
        ...

    def detokenize(self, request: Detokenize) -> Spelled:
        """As `tokenize`; raises InvalidValue, naming `tokens`, for an id that is not in the vocabulary."""
        ...

    def count(self, request: Generate) -> int:
        """The tokens of prompt that `submit` of the same request would tell. At once; changes nothing.

        Raises RequestError where this engine does not generate; a prompt over the context is counted all the same.
        """
        ...

    def step(self) -> list[tuple[int, Event]]:
        """One unit of work over all queued requests, about 100 ms at most, so that `cancel` is heard soon.

        Returns what became of them; a request's events come in order and end with exactly one `is_last`. A fault of
        one request is its `Failed` event; raising means the engine is broken and its process is replaced.
        """
        ...

    def cancel(self, key: int) -> None:
        """Forget a request; it gets no more events. Idempotent; an unknown key is no fault (it may just have ended)."""
        ...

    @property
    def busy(self) -> bool:
        """Whether `step` has work."""
        ...

    def close(self) -> None:
        """Let everything go."""
        ...
