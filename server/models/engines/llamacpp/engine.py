"""The llama.cpp engine, by the xllamacpp package: any GGUF file, several answers at once. Workers only.

llama.cpp's own server does the batching; completions are called in process, one thread for each that runs. It opens an
HTTP port besides, which nothing can close: it listens on 127.0.0.1 alone and asks for a key made up at load. What the
package offers no call for goes through it: tokenising, and the completions of a model that sees.
"""

import queue
import threading
from collections import deque
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from config.model import LocalModel
from server.errors import (
    ContextLengthExceeded,
    HearthError,
    InvalidValue,
    RequestError,
    ServiceError,
    UnsupportedParameter,
)
from server.models import native, projector
from server.models.abilities import ABILITIES, STRUCTURED, infilling
from server.models.engine import (
    Admitted,
    Card,
    Delta,
    Detokenize,
    Event,
    Failed,
    Generate,
    Progress,
    Request,
    Spelled,
    Tokenize,
    Tokens,
    check_tokens,
    is_last,
)
from server.models.engines.compiling import deep_threads
from server.models.engines.llamacpp.eye import TEMPLATE, Eye, Seen, announce
from server.models.engines.llamacpp.file import Metadata
from server.models.engines.llamacpp.log import listening
from server.models.engines.llamacpp.package import device, imported
from server.models.engines.llamacpp.port import Port, Stream
from server.models.engines.llamacpp.wire import Answer, completion, held

_LONGEST_CONTEXT = 8192
"""Tokens per sequence where the recipe does not say; many models claim 131072, whose cache would fill the memory."""

_BATCH = 512
"""Prompt tokens computed at once: cancelling is heard between batches. It is llama.cpp's own physical batch too."""

_WAIT_S = 0.03
_MOST_EVENTS = 256
_PATIENCE_S = 10.0
"""How long closing waits for an answer's thread; a batch of the prompt takes less."""

_ERRORS_ONLY = 1
_SHARED_CONTEXTS = 2
"""How many whole contexts the keys and values of all conversations hold where the recipe does not say."""

_KINDS = {"auto": ("GGML_TYPE_F16", 2.0), "f32": ("GGML_TYPE_F32", 4.0), "bf16": ("GGML_TYPE_BF16", 2.0)}
_KINDS["q8"] = ("GGML_TYPE_Q8_0", 34 / 32)
"""By the recipe's word for `cache`: ggml's type of keys and values, and its bytes a value."""


@dataclass(eq=False)
class _Running:
    """`reserved` are the tokens its prompt and longest answer take of those all conversations share.

    `body` is the completion without `prompt`; `stream` is its way to llama.cpp's port, where it goes through that.
    """

    key: int
    body: dict[str, Any]
    prompt: list[int] | Seen
    answer: Answer
    reserved: int
    stream: Stream | None
    cancelled: bool = False

    def cancel(self) -> None:
        self.cancelled = True
        if self.stream is not None:
            self.stream.hang_up()

    def encoded(self) -> bytes:
        """Raises InvalidValue where its pictures are too large together."""
        prompt = self.prompt.encoded() if isinstance(self.prompt, Seen) else self.prompt
        return msgspec.json.encode({"prompt": prompt, **self.body})


class LlamaCppEngine:
    """Serves Generate requests whose `prompt` is rendered.

    Those beyond `parallel`, or beyond the memory for keys and values, wait their turn, in order: llama.cpp would break
    off every answer when that memory is used up.
    """

    def __init__(self, spec: LocalModel, files: Path, cache: Path, sight: Path | None = None) -> None:
        """`sight` is the file of the projector, for a model that sees."""
        self._spec = spec
        self._files = files
        self._sight = sight
        self._engines = native.home(cache.parent)
        self._running: dict[int, _Running] = {}
        self._waiting: deque[_Running] = deque()
        self._started: queue.SimpleQueue[_Running | None] = queue.SimpleQueue()
        self._arrived: queue.SimpleQueue[tuple[_Running, Event | None]] = queue.SimpleQueue()
        """What the threads say; None where one is done with its request."""
        self._threads: list[threading.Thread] = []
        self._free = 0
        self._idle = 0
        self._server: Any = None
        self._port = Port()
        self._eye: Eye | None = None

    # ---- loading ----------------------------------------------------------------------------------------------------

    def load(self, progress: Progress) -> Card:
        file, spec = self._files, self._spec
        if spec.draft is not None:
            raise ValueError(f"{file}: the engine llamacpp takes no draft; leave it out, or use engine: openvino")
        if spec.precision != "auto":
            raise ValueError(f"{file}: the engine llamacpp takes no precision; leave it out, or use engine: openvino")
        progress(f"reading {file.name}")
        self._metadata = Metadata.read(file)
        if self._sight is not None:
            projector.check(file, self._sight)
            announce()
        trained = self._metadata.context or _LONGEST_CONTEXT
        self._context = min(spec.context or _LONGEST_CONTEXT, trained)
        shared = max(self._context, spec.cache_tokens or _SHARED_CONTEXTS * self._context)
        llama, self._structured = imported(self._engines)
        progress(f"loading {file.name}")
        with listening() as words, deep_threads():
            try:
                self._server = llama.Server(self._params(llama, shared))
            except RuntimeError as error:
                why = words.complaint() or f"its architecture is {self._metadata.architecture}"
                raise ValueError(f"{file}: llama.cpp {llama.__version__} could not load it: {why}") from error
        self._port.open(self._server.listening_address)
        if self._sight is not None:
            self._eye = self._opened_eye()
        self._free, self._idle = shared, spec.parallel
        for number in range(spec.parallel):
            thread = threading.Thread(target=self._serve, name=f"answer-{number}", daemon=True)
            thread.start()
            self._threads.append(thread)
        return Card(
            task="chat",
            description="A language model in GGUF format, computed by llama.cpp.",
            context=self._context,
            honours=infilling(self._abilities(), self._metadata.infill),
            device=device(llama),
            weights_bytes=file.stat().st_size + (0 if self._sight is None else self._sight.stat().st_size),
            cache_bytes=int(shared * self._metadata.cached_values * _KINDS[spec.cache][1]),
            rendered=True,
            family=self._metadata.architecture,
            template=self._metadata.template,
            special=self._metadata.special,
            control=self._metadata.control,
            infill=self._metadata.infill,
        )

    def _abilities(self) -> frozenset[str]:
        able = ABILITIES["llamacpp"] if self._structured else ABILITIES["llamacpp"] - STRUCTURED
        return able if self._sight is None else able | {"images"}

    def _opened_eye(self) -> Eye:
        begun = self.tokenize(Tokenize("")).ids
        bare = partial(Tokenize, add_special=False)
        return Eye(
            self._port.asked,
            lambda text: self.tokenize(bare(text)).ids,
            self._metadata.special.get("bos_token", "") if begun else "",
            len(begun),
        )

    def _params(self, llama: Any, shared: int) -> Any:
        params = llama.CommonParams()
        params.model.path = str(self._files)
        # All sequences share one memory for keys and values, and none is promised a part of its own.
        params.n_ctx, params.kv_unified = shared, True
        params.n_parallel = self._spec.parallel
        params.n_batch = _BATCH
        kind = getattr(llama.ggml_type, _KINDS[self._spec.cache][0])
        params.cache_type_k, params.cache_type_v = kind, kind
        params.verbosity = _ERRORS_ONLY
        # Prompts of sequences that ended would be kept in up to 8 GiB of memory that no recipe speaks of.
        params.cache_ram_mib = 0
        # It would shrink the context to what it believes the memory holds.
        params.fit_params = False
        # Weights that are not numbers are told when they are loaded; unchecked, every answer would be noise.
        params.check_tensors = True
        params.hostnames, params.port = ["127.0.0.1"], 0
        params.api_keys = [self._port.key]
        params.n_threads_http = 2
        if self._sight is not None:
            params.mmproj.path = str(self._sight)
            params.chat_template = TEMPLATE
            params.n_threads_http += self._spec.parallel  # each answer keeps one
        params.ui = False
        params.endpoint_slots = False
        if self._spec.threads is not None:
            params.cpuparams.n_threads = self._spec.threads
            params.cpuparams_batch.n_threads = self._spec.threads
        return params

    # ---- requests ---------------------------------------------------------------------------------------------------

    def submit(self, key: int, request: Request) -> Admitted:
        if not isinstance(request, Generate):
            raise RequestError("This model is for chat, not for embeddings.", param="model")
        if request.prompt_logprobs is not None:
            raise UnsupportedParameter("The engine llamacpp gives no prompt_logprobs.", param="prompt_logprobs")
        self._refuse_ids(request)
        if request.grammar is not None and not self._structured:
            raise UnsupportedParameter(native.WITHOUT_GRAMMARS, param=request.grammar.param)
        prompt = self._read(request)
        tokens = _length(prompt)
        if tokens >= self._context:
            raise ContextLengthExceeded.of(self._context, tokens)
        check_tokens(request.sampling.logit_bias, len(self._metadata.tokens), "logit_bias")
        room = self._context - tokens
        if request.max_tokens is not None:
            room = min(room, request.max_tokens)
        check = None if request.grammar is None else held(request.grammar)
        body = completion(request, room, self._context)
        # Beside a projector, OpenAI's route takes texts alone, and no pictures with them.
        stream = None if self._eye is None else self._port.stream()
        answer = Answer(self._metadata.tokens, request.sampling.top_logprobs, check, own=stream is not None)
        running = _Running(key, body, prompt, answer, tokens + room, stream)
        self._running[key] = running
        if room > 0:
            self._waiting.append(running)
            self._start()
        else:  # llama.cpp takes 0 for 1
            self._arrived.put((running, Delta(finish_reason="length")))
        return Admitted(tokens)

    @staticmethod
    def _refuse_ids(request: Generate) -> None:
        asked = {
            "min_tokens": request.sampling.min_tokens,
            "stop_token_ids": request.sampling.stop_token_ids,
            "return_token_ids": request.token_ids,
        }
        for param in (name for name, value in asked.items() if value):
            raise UnsupportedParameter(f"The engine llamacpp honours no {param}.", param=param)

    def _start(self) -> None:
        """Hand to the threads what there is room for, in order."""
        while self._waiting and self._idle > 0:
            first = self._waiting[0]
            if first.cancelled:
                self._waiting.popleft()
            elif first.reserved <= self._free:
                self._waiting.popleft()
                self._free -= first.reserved
                self._idle -= 1
                self._started.put(first)
            else:
                return

    def _read(self, request: Generate) -> list[int] | Seen:
        if not request.images:
            return self._tokens(request.prompt)
        if self._eye is None:
            raise UnsupportedParameter("This model sees no pictures.", param=request.images[0].param)
        if not isinstance(request.prompt, str):
            raise RequestError("Pictures stand in conversations, not in token ids.", param="prompt")
        return self._eye.read(request.prompt, request.images)

    def _tokens(self, prompt: str | list[int] | None) -> list[int]:
        if prompt is None:
            raise RequestError("This model needs a chat template, and has none.", param="messages")
        if isinstance(prompt, list):
            check_tokens(prompt, len(self._metadata.tokens), "prompt")
            ids = prompt
        else:
            ids = self.tokenize(Tokenize(prompt)).ids
        if not ids:
            raise InvalidValue("The prompt is empty.", param="prompt")
        return ids

    def count(self, request: Generate) -> int:
        return _length(self._read(request))

    def tokenize(self, request: Tokenize) -> Tokens:
        begun = self._metadata.special.get("bos_token", "")
        twice = bool(begun) and request.parse_special and request.text.startswith(begun)
        body = {
            "content": request.text,
            "add_special": request.add_special and not twice,
            "parse_special": request.parse_special,
            "with_pieces": request.pieces,
        }
        said = self._port.asked("/tokenize", body)["tokens"]
        if request.pieces:
            return Tokens([each["id"] for each in said], [_bytes(each["piece"]) for each in said])
        return Tokens(said)

    def detokenize(self, request: Detokenize) -> Spelled:
        check_tokens(request.tokens, len(self._metadata.tokens), "tokens")
        text: str = self._port.asked("/detokenize", {"tokens": request.tokens})["content"]
        return Spelled(text.removeprefix(" ") if self._metadata.prefixed else text)

    def step(self) -> list[tuple[int, Event]]:
        """What arrived since; waits a moment where nothing did, as the computing is done by other threads."""
        events: list[tuple[int, Event]] = []
        try:
            self._take(*self._arrived.get(timeout=_WAIT_S), events)
            while len(events) < _MOST_EVENTS:
                self._take(*self._arrived.get_nowait(), events)
        except queue.Empty:
            pass
        self._start()
        return events

    def _take(self, running: _Running, event: Event | None, events: list[tuple[int, Event]]) -> None:
        if event is None:
            self._free += running.reserved
            self._idle += 1
        elif self._running.get(running.key) is running:
            events.append((running.key, event))
            if is_last(event):
                del self._running[running.key]

    def cancel(self, key: int) -> None:
        running = self._running.pop(key, None)
        if running is not None:
            running.cancel()

    @property
    def busy(self) -> bool:
        return bool(self._running)

    def close(self) -> None:
        for running in self._running.values():
            running.cancel()
        self._running.clear()
        self._waiting.clear()
        for _ in self._threads:
            self._started.put(None)
        for thread in self._threads:
            thread.join(_PATIENCE_S)
        self._threads.clear()
        self._server = None

    # ---- in the threads of the answers ------------------------------------------------------------------------------

    def _serve(self) -> None:
        server = self._server
        while (running := self._started.get()) is not None:
            if not running.cancelled:
                self._complete(server, running)
            self._arrived.put((running, None))

    def _complete(self, server: Any, running: _Running) -> None:
        ended = False

        def heard(chunk: bytes) -> bool:
            """Called for each chunk; True ends the completion. What it raised would be lost in native code."""
            nonlocal ended
            if running.cancelled or ended:
                return True
            try:
                events = running.answer.read(chunk)
            except ValueError as error:
                events = [Failed(ServiceError.code, f"llama.cpp said what could not be read: {error}")]
            for event in events:
                ended = ended or is_last(event)
                self._arrived.put((running, event))
            return ended

        why = "it ended without saying why"
        try:
            body = running.encoded()
            if running.stream is not None:
                running.stream.run("/completion", body, heard)
            else:
                server.handle_completions(body, heard)
        except HearthError as error:
            ended = True
            self._arrived.put((running, Failed.of(error)))
        except Exception as error:  # noqa: BLE001  # whatever native code throws is this request's fault alone
            why = str(error)
        if not ended and not running.cancelled:
            self._arrived.put((running, Failed(ServiceError.code, f"llama.cpp broke off the answer: {why}")))


def _length(prompt: list[int] | Seen) -> int:
    return prompt.tokens if isinstance(prompt, Seen) else len(prompt)


def _bytes(piece: str | list[int]) -> bytes:
    """A token's bytes: llama.cpp says them as text where they are some."""
    return piece.encode() if isinstance(piece, str) else bytes(piece)
