"""The engines exllamav2 and exllamav3: requests to answers, steps to deltas, whichever package computes."""

from collections import deque
from pathlib import Path

import msgspec

from config.model import LocalModel
from server.errors import HearthError, InvalidValue, UnsupportedParameter
from server.models.abilities import ABILITIES, infilling
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
    Sampling,
    Scored,
    Spelled,
    Tokenize,
    TokenLogprob,
    Tokens,
)
from server.models.engines.exllama import extension
from server.models.engines.exllama.answer import Answer, Samplers
from server.models.engines.exllama.folder import readable
from server.models.engines.exllama.generator import PAGE, Generator, Wanted, pages
from server.models.engines.exllama.sight import blind, image_token
from server.models.engines.exllama.vision import Placed, Seen, Vision
from server.models.engines.sampling import vocabulary
from server.models.engines.sampling.admission import Desk
from server.models.header import config

_LONGEST_CONTEXT = 8192
"""Tokens where the recipe does not say; many models claim 131072."""
_SHARED_CONTEXTS = 2
"""How many whole contexts the keys and values of all conversations hold where the recipe does not say."""
_NAMES = {"exllamav2": "ExLlamaV2", "exllamav3": "ExLlamaV3"}


class ExLlamaEngine:
    """Serves Generate requests whose `prompt` is rendered; those beyond `parallel`, or beyond the pages, wait.

    An adapter is in force for all answers at once: a request for another one starts when those before it have ended.
    """

    def __init__(self, engine: str, spec: LocalModel, files: Path, data: Path, drafter: Path | None = None) -> None:
        """`engine` is exllamav2 or exllamav3, `data` the data directory. `drafter` is the small model that guesses
        ahead, where the recipe declares one."""
        self._engine = engine
        self._spec = spec
        self._files = files
        self._data = data
        self._drafter = drafter
        self._answers: dict[int, Answer] = {}
        self._waiting: deque[Answer] = deque()
        """What the generator does not have yet."""
        self._adapter: str | None = None
        self._generator: Generator | None = None
        self._vision: Vision | None = None

    # ---- loading ----------------------------------------------------------------------------------------------------

    def load(self, progress: Progress) -> Card:
        spec, folder = self._spec, self._files
        progress(f"reading {folder.name}")
        told = config(folder)
        words = told.get("text_config") or told
        trained = int(words.get("max_position_embeddings") or _LONGEST_CONTEXT)
        self._context = spec.context or min(trained, _LONGEST_CONTEXT)
        if self._context > trained:
            raise ValueError(
                f"{folder / 'config.json'}: the model reads {trained} tokens, and the recipe's context is "
                f"{self._context}"
            )
        self._words = vocabulary.from_folder(folder, int(words["vocab_size"]))
        if self._drafter is not None:
            small = config(self._drafter)
            size = int((small.get("text_config") or small)["vocab_size"])
            self._words.check_same(vocabulary.from_folder(self._drafter, size), self._drafter)
        unseen = blind(self._engine, folder, told, drafted=self._drafter is not None)
        self._generator = generator = self._loaded(progress, image_token(told) if unseen is None else None)
        if generator.tower is not None:
            self._vision = Vision(generator.tower, self._words)
        self._desk = Desk(self._words, self._context)
        self._samplers = Samplers(generator.vocabulary)
        progress("computing once")
        self._warm()
        return Card(
            task="chat",
            description=(
                f"A {told.get('model_type', 'language')} model, computed by {_NAMES[self._engine]} "
                f"{generator.version} on {generator.device} with attention by {generator.attention}."
                + (f" It sees no pictures: {unseen}." if unseen is not None and "vision_config" in told else "")
            ),
            context=self._context,
            honours=infilling(
                ABILITIES[self._engine] | ({"images"} if self._vision is not None else frozenset()), self._words.infill
            ),
            device=generator.device,
            precision="f16",
            attention=generator.attention,
            weights_bytes=generator.weights_bytes,
            cache_bytes=generator.cache_bytes,
            rendered=True,
            family=str(told.get("model_type") or ""),
            template=self._words.template,
            special=self._words.special,
            control=self._words.control,
            infill=self._words.infill,
        )

    def _loaded(self, progress: Progress, image: int | None) -> Generator:
        spec = self._spec
        guesses = spec.draft_tokens if spec.draft is not None else 0
        # The generator reserves room for guesses behind the longest answer.
        tokens = pages(max(self._context, spec.cache_tokens or _SHARED_CONTEXTS * self._context) + guesses + 1) * PAGE
        wanted = Wanted(
            self._files,
            self._context,
            tokens,
            spec.parallel,
            cache="fp16" if spec.cache == "auto" else spec.cache,
            guesses=guesses,
            drafter=self._drafter,
            adapters={Path(each).name: Path(each) for each in spec.adapters},
            split=spec.gpu_split,
            tensor_parallel=spec.tensor_parallel,
            image=image,
            control=self._words.control,
            name=self._files.name,
        )
        extension.prepare(self._engine, self._data)
        cache = self._data / "cache"
        with readable(self._engine, self._files, cache, progress) as folder:
            wanted = Wanted(**{**vars(wanted), "folder": folder})
            if self._engine == "exllamav3":
                from server.models.engines.exllama.v3 import V3

                return V3(wanted, progress)
            from server.models.engines.exllama.v2 import V2

            if self._drafter is None:
                return V2(wanted, None, progress)
            with readable(self._engine, self._drafter, cache, progress) as drafter:
                return V2(wanted, drafter, progress)

    def _warm(self) -> None:
        """Answer once, so that the first request does not pay for what is set up at the first pass."""
        tokens = [0] * max(1, min(32, self._context - 4))
        self.submit(-1, Generate(prompt=tokens, max_tokens=2, sampling=Sampling(temperature=0.0, ignore_eos=True)))
        while self.busy:
            self.step()

    # ---- requests ---------------------------------------------------------------------------------------------------

    def submit(self, key: int, request: Request) -> Admitted:
        pictures: list[Placed] = []
        if isinstance(request, Generate) and request.images:
            seen = self._read(request)
            pictures = seen.pictures
            # The model's own tokens stand for the pictures from here on.
            request = msgspec.structs.replace(request, prompt=seen.tokens, images=[])
        admission = self._desk.admit(request)
        answer = Answer(key, admission, self._samplers, self._adapter_of(request), pictures=pictures)
        self._answers[key] = answer
        self._waiting.append(answer)
        return admission.told

    def _read(self, request: Generate) -> Seen:
        """The prompt with its pictures. Raises RequestError, naming the field, where it cannot be had."""
        if self._vision is None:
            raise UnsupportedParameter("This model sees no pictures.", param=request.images[0].param)
        if request.prompt_logprobs is not None:
            raise UnsupportedParameter("A prompt with pictures has no prompt_logprobs.", param="prompt_logprobs")
        return self._vision.read(request.prompt, request.images)

    def _adapter_of(self, request: Request) -> str | None:
        assert isinstance(request, Generate)
        name = request.sampling.adapter
        names = [Path(each).name for each in self._spec.adapters]
        if name is not None and name not in names:
            raise InvalidValue(
                f"The adapter {name!r} is not one of this model's: {', '.join(names) or 'it has none'}.",
                param="adapter",
            )
        return name

    def tokenize(self, request: Tokenize) -> Tokens:
        return self._desk.tokenize(request)

    def detokenize(self, request: Detokenize) -> Spelled:
        return self._desk.detokenize(request)

    def count(self, request: Generate) -> int:
        return len(self._read(request).tokens) if request.images else self._desk.count(request)

    def cancel(self, key: int) -> None:
        answer = self._answers.pop(key, None)
        if answer is None:
            return
        if answer in self._waiting:
            self._waiting.remove(answer)
        elif self._generator is not None:
            self._generator.drop(answer)

    @property
    def busy(self) -> bool:
        return bool(self._answers)

    def close(self) -> None:
        for key in list(self._answers):
            self.cancel(key)
        if self._vision is not None:
            self._vision.close()
            self._vision = None
        if self._generator is not None:
            self._generator.close()
            self._generator = None

    # ---- steps ------------------------------------------------------------------------------------------------------

    def step(self) -> list[tuple[int, Event]]:
        assert self._generator is not None
        self._look()
        self._start(self._generator)
        begun = len(self._answers) > len(self._waiting)
        unfinished = self._generator.iterate() if begun else []
        events: list[tuple[int, Event]] = []
        for answer in list(self._answers.values()):
            if answer.chosen or answer.over:
                events += [(answer.key, event) for event in self._told(answer)]
            if answer.over:
                self.cancel(answer.key)
        for answer in unfinished:
            self._generator.start(answer)
        return events

    def _look(self) -> None:
        """One picture of what is waiting, at most."""
        if self._vision is None:
            return
        unseen = [(answer, placed) for answer in self._waiting for placed in answer.pictures if placed.embedded is None]
        if not unseen:
            return
        idle = not any(answer.seen for answer in self._answers.values())
        try:
            self._vision.look([placed for _, placed in unseen], idle=idle)
        except HearthError as error:
            unseen[0][0].fault = error

    def _start(self, generator: Generator) -> None:
        """Hand over what is waiting, in order, as far as one adapter goes; what has a picture that nobody looked at yet
        lets the others pass."""
        for answer in [each for each in self._waiting if each.seen and not each.over]:
            if answer.adapter != self._adapter:
                if len(self._answers) > len(self._waiting):
                    return
                generator.adapt(answer.adapter)
                self._adapter = answer.adapter
            self._waiting.remove(answer)
            generator.start(answer)

    def _told(self, answer: Answer) -> list[Event]:
        """What was chosen since the last step, as one event."""
        speaking = answer.admission.speaking
        text, tokens = "", 0
        logprobs: list[TokenLogprob] = []
        ids: list[int] = []
        while answer.chosen:
            choice = answer.chosen.popleft()
            text += speaking.feed(choice.token)
            tokens += 1
            logprobs += self._desk.logprobs(choice)
            ids.append(choice.token)
        if answer.fault is not None:
            return [Failed.of(answer.fault)]
        if answer.reason is not None:
            text += speaking.flush()
        events: list[Event] = []
        cached = 0
        if not answer.begun:
            answer.begun, cached = True, answer.cached or 0
            if answer.admission.scored is not None:
                first = self._desk.logprob(answer.admission.tokens[0], None)
                events.append(Scored([first, *(each for read in answer.read for each in self._desk.logprobs(read))]))
        told = ids if answer.admission.ids else []
        delta = Delta(text, tokens, cached_tokens=cached, finish_reason=answer.reason, logprobs=logprobs, ids=told)
        return [*events, delta]
