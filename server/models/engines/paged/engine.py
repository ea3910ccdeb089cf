"""The generating engine: requests to sequences, steps to deltas; knows nothing of stop strings, templates or tools."""

import logging
import time
from dataclasses import dataclass, field
from pathlib import Path

from config.model import LocalModel
from server.errors import ContextLengthExceeded, HearthError
from server.models import native, openvino_kernel
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
    Scored,
    Spelled,
    Tokenize,
    TokenLogprob,
    Tokens,
)
from server.models.engines.paged import trial
from server.models.engines.paged.constants import Constants
from server.models.engines.paged.folder import Folder
from server.models.engines.paged.gguf_file import GgufFile
from server.models.engines.paged.kernel import Kernel
from server.models.engines.paged.pages import Pages
from server.models.engines.paged.runtime import ROUNDED, Decoder, capabilities, precision_of
from server.models.engines.paged.schedule import Schedule, Sequence, Work
from server.models.engines.paged.size import held
from server.models.engines.paged.span import Span
from server.models.engines.paged.speculation import Draft, ModelDraft, NgramDraft
from server.models.engines.sampling import vocabulary
from server.models.engines.sampling.admission import Desk
from server.models.engines.sampling.sampler import Choice, Chooser, Rows, Sampler
from server.models.engines.sampling.vocabulary import Speaking, Vocabulary

log = logging.getLogger(__name__)

_STEP_SECONDS = 0.1
"""What a step aims at while others wait for their next token, so that a long prompt does not hold them up."""
_ALONE_SECONDS = 1.0
"""What it aims at while nobody waits for one: larger pieces are faster, and only a cancellation has to wait."""
_LEAST, _MOST = 32, 2048
_GUESSED = 16
"""The most tokens guessed in one step by all streams together, but one for each."""
_SCORED_BYTES = 64 * 1024 * 1024
"""The most that logits of a prompt take in one step: a prompt that is scored is read in smaller pieces."""


@dataclass(eq=False)
class _Answer:
    """One request under way."""

    sequence: Sequence
    chooser: Chooser
    speaking: Speaking
    limit: int
    alternatives: int | None
    """Of each token of the prompt, where its log-probabilities are asked for."""
    ids: bool
    written: int = 0
    begun: bool = False
    scores: list[TokenLogprob] = field(default_factory=list)

    @property
    def scores_prompt(self) -> bool:
        """Whether some token of the prompt is still to be scored."""
        return self.alternatives is not None and len(self.scores) < self.sequence.prompt


@dataclass(eq=False)
class _Turn:
    """What one step adds to one answer; `row` of the logits decides its next token."""

    answer: _Answer
    work: Work
    row: int
    text: str = ""
    tokens: int = 0
    accepted: int = 0
    logprobs: list[TokenLogprob] = field(default_factory=list)
    reason: str | None = None
    fault: HearthError | None = None


class PagedEngine:
    """Serves Generate requests on the processor, all sequences of a step in one pass.

    With `draft`, every request speculates, whatever its sampling or grammar, but for the answers of requests that
    end at once (`max_tokens` 0 or 1); see `speculation`.
    """

    def __init__(self, spec: LocalModel, files: Path, drafter: Path | None = None, cache: Path | None = None) -> None:
        """`drafter` is the small model that guesses ahead, where the recipe declares one; `cache` is the folder where
        the weights are while they are in use, None to hold them in memory."""
        self._files = files
        self._cache = cache
        self._drafter = drafter
        self._spec = spec
        self._answers: dict[int, _Answer] = {}
        self.drafted = 0
        self.accepted = 0
        """Tokens guessed and tokens guessed rightly since the engine was loaded."""

    def load(self, progress: Progress) -> Card:
        spec = self._spec
        progress("checking the runtime")
        trial.run()
        progress("reading the weights")
        precision = precision_of(spec.precision, capabilities())
        if precision == ROUNDED and not trial.rounds():
            log.warning("OpenVINO has no kernel for activations of 8 bits on this processor; computing in f32")
            precision = "f32"
        weights, words = read(self._files, keep_floats=spec.weights == "float")
        self._words = words
        self._kernel = self._compiled_here(precision, progress)
        self._context = spec.context or min(weights.shape.context or 8192, 8192)
        progress("compiling the graph")
        tokens = max(spec.cache_tokens or 2 * self._context, self._context)
        self._decoder = self._compiled(weights, tokens, precision)
        self.pages = Pages(self._decoder.pages, self._decoder.page_size)
        self.schedule = Schedule(self.pages, spec.parallel)
        self._desk = Desk(words, self._context)
        self._sampler = Sampler(weights.shape.vocabulary)
        self._piece = max(1, _SCORED_BYTES // (4 * weights.shape.vocabulary))
        self._draft = self._drafting(tokens, precision, progress)
        self._rate = self._warmed()
        tokenizer = self._files / "tokenizer.json"
        by = "" if self._kernel is None else " by the kernel built on this machine"
        return Card(
            task="chat",
            description=f"A {weights.shape.family} model, computed on the processor{by}.",
            context=self._context,
            tokenizer=str(tokenizer) if tokenizer.is_file() else None,
            honours=infilling(ABILITIES["openvino"], words.infill),
            precision=precision,
            weights_bytes=held(weights),
            cache_bytes=self._decoder.cache_bytes,
            rendered=True,
            family=weights.shape.family,
            template=words.template,
            special=words.special,
            control=words.control,
            infill=words.infill,
        )

    def _drafting(self, tokens: int, precision: str, progress: Progress) -> Draft | None:
        spec = self._spec
        if spec.draft is None:
            return None
        if self._drafter is None:
            return NgramDraft(spec.draft_tokens)
        progress("reading the draft's weights")
        weights, words = read(self._drafter, keep_floats=spec.weights == "float")
        self._words.check_same(words, self._drafter)
        progress("compiling the draft's graph")
        return ModelDraft(
            self._compiled(weights, tokens, precision),
            context=weights.shape.context or self._context,
            most=spec.draft_tokens,
            vocabulary=len(self._words.pieces),
        )

    def _compiled(self, weights: GgufFile | Folder, tokens: int, precision: str) -> Decoder:
        spec = self._spec
        constants = Constants(self._cache, held(weights, kernel=self._kernel is not None))
        return Decoder(
            weights,
            tokens=tokens,
            precision=precision,
            threads=spec.threads,
            cache=spec.cache,
            constants=constants,
            kernel=self._kernel,
        )

    def _compiled_here(self, precision: str, progress: Progress) -> Kernel | None:
        """The multiplication that was compiled on this machine, once it is seen to be right. Exact f32 has none."""
        if precision == "f32" or self._cache is None or not openvino_kernel.possible():
            return None
        engines = native.home(self._cache.parent)
        library = openvino_kernel.found(engines)
        if (fault := openvino_kernel.fault(engines)) is not None:
            log.warning("the kernel built on this machine is not used: %s; hearth engines build openvino", fault)
            return None
        if library is None:
            progress("this engine is faster with a kernel built on this machine: hearth engines build openvino")
            return None
        try:
            kernel = Kernel(library)
            trial.multiplies(kernel)
            trial.decodes(kernel)
        except RuntimeError as error:
            log.warning("the kernel built on this machine is not used: %s", error)
            return None
        progress(f"quantised weights go by the kernel built on this machine ({kernel.registers} bits)")
        return kernel

    def _warmed(self) -> float:
        """Compute once, so that the first request does not pay for it; returns tokens a second."""
        count = min(64, self._decoder.page_size, self._context)
        for _ in range(2):
            started = time.perf_counter()
            self._decoder.compute([Span([0] * count, 0, [0], 1)])
        rate = count / (time.perf_counter() - started)
        self._decoder.compute([Span([0], 0, [0], 1, written=True)])
        return rate

    # ---- requests -----------------------------------------------------------------------------------------------

    def submit(self, key: int, request: Request) -> Admitted:
        admitted = self._desk.admit(request)
        tokens, scored = admitted.tokens, admitted.scored
        answer = _Answer(
            Sequence(
                tokens,
                key=key,
                prompt=len(tokens),
                piece=None if scored is None else self._piece,
                # Logits are not kept with pages: what is to be scored is computed.
                reuses=scored is None,
            ),
            admitted.chooser,
            admitted.speaking,
            limit=admitted.limit,
            alternatives=scored,
            ids=admitted.ids,
        )
        if scored is not None:
            answer.scores.append(self._desk.logprob(tokens[0], None))
        self._answers[key] = answer
        self.schedule.add(answer.sequence)
        return admitted.told

    def tokenize(self, request: Tokenize) -> Tokens:
        return self._desk.tokenize(request)

    def detokenize(self, request: Detokenize) -> Spelled:
        return self._desk.detokenize(request)

    def count(self, request: Generate) -> int:
        return self._desk.count(request)

    def cancel(self, key: int) -> None:
        if (answer := self._answers.pop(key, None)) is not None:
            self.schedule.remove(answer.sequence)
            if self._draft is not None:
                self._draft.forget(answer.sequence)

    @property
    def busy(self) -> bool:
        return bool(self._answers)

    def close(self) -> None:
        for key in list(self._answers):
            self.cancel(key)

    # ---- steps --------------------------------------------------------------------------------------------------

    def step(self) -> list[tuple[int, Event]]:
        works = self.schedule.plan(self._budget())
        events: list[tuple[int, Event]] = []
        for sequence in self.schedule.exceeding():
            most = self.pages.count * self.pages.size
            events.append((sequence.key, Failed.of(ContextLengthExceeded.of(most, len(sequence.tokens)))))
            self.cancel(sequence.key)
        if not works:
            return events
        started = time.perf_counter()
        if self._draft is not None:
            self._guess(self._draft, works)
        spans = [self._span(work) for work in works]
        logits = self._decoder.compute(spans)
        self._learn(works, time.perf_counter() - started)
        turns = self._turns(works, spans, logits)
        self._choose(turns, logits)
        accepted = {turn.work: turn.accepted for turn in turns}
        for work in works:
            self.schedule.done(work, accepted.get(work, 0))
        for turn in turns:
            events += self._told(turn)
        return events

    def _guess(self, draft: Draft, works: list[Work]) -> None:
        """Give the works that decode what may come next."""
        asked = []
        # One stream leaves the processor idle while weights are read, and its guesses are almost free; many do not.
        share = max(1, _GUESSED // len(works))
        for work in works:
            answer = self._answers[work.sequence.key]
            most = min(draft.most, share, answer.limit - answer.written - 1)
            if work.ends and work.count == 1 and most > 0 and not answer.scores_prompt:
                asked.append((work, most))
        guesses = draft.guess([(work.sequence, most) for work, most in asked])
        for (work, _), found in zip(asked, guesses, strict=True):
            self.schedule.extend(work, found)
            self.drafted += len(work.guesses)

    def _span(self, work: Work) -> Span:
        sequence = work.sequence
        tokens = sequence.tokens[sequence.past : sequence.past + work.count]
        if self._answers[sequence.key].scores_prompt:
            return Span(tokens, sequence.past, sequence.pages, work.count)
        wanted = 1 + len(work.guesses) if work.ends else 0
        written = work.count == 1 and sequence.past >= sequence.prompt
        return Span(tokens + work.guesses, sequence.past, sequence.pages, wanted, written)

    def _turns(self, works: list[Work], spans: list[Span], logits: Rows) -> list[_Turn]:
        """The answers that get their next token now; on the way prompts are scored."""
        turns = []
        row = 0
        for work, span in zip(works, spans, strict=True):
            answer = self._answers[work.sequence.key]
            if answer.scores_prompt:
                self._score(answer, span, logits[row : row + span.wanted])
            row += span.wanted
            if work.ends:
                turns.append(_Turn(answer, work, row - 1 - len(work.guesses)))
        return turns

    def _score(self, answer: _Answer, span: Span, logits: Rows) -> None:
        """Row i of `logits` says how likely the token after position `past` + i was."""
        tokens, wanted = answer.sequence.tokens, answer.alternatives or 0
        for place, row in enumerate(logits, span.past + 1):
            # After a preemption the first ones are known already.
            if len(answer.scores) <= place < answer.sequence.prompt:
                answer.scores += self._desk.logprobs(self._sampler.told(row, tokens[place], wanted))

    def _choose(self, turns: list[_Turn], logits: Rows) -> None:
        """One token of each answer after another, as long as its guesses turn out right."""
        going = []
        for turn in turns:
            if turn.answer.limit:
                going.append(turn)
            else:
                turn.reason = "length"
        while going:
            choices = self._sampler.choose(logits, [(turn.row, turn.answer.chooser) for turn in going])
            going = [turn for turn, choice in zip(going, choices, strict=True) if self._goes_on(turn, choice)]

    def _goes_on(self, turn: _Turn, choice: Choice | HearthError) -> bool:
        """Note what was chosen; whether the next row stands for what comes after it."""
        answer = turn.answer
        if isinstance(choice, HearthError):
            turn.fault = choice
            return False
        if choice.token in answer.chooser.ends:
            turn.reason = "stop"
            return False
        answer.sequence.tokens.append(choice.token)
        answer.written += 1
        guesses = turn.work.guesses
        right = turn.tokens < len(guesses) and guesses[turn.tokens] == choice.token
        turn.tokens += 1
        turn.text += answer.speaking.feed(choice.token)
        turn.logprobs += self._desk.logprobs(choice)
        turn.row += 1
        if right:
            turn.accepted += 1
            self.accepted += 1
        if answer.chooser.ended:
            turn.reason = "stop"
        elif answer.written >= answer.limit:
            turn.reason = "length"
        return right and turn.reason is None

    def _told(self, turn: _Turn) -> list[tuple[int, Event]]:
        """The events of one answer's step; one that is over is let go."""
        answer, key = turn.answer, turn.answer.sequence.key
        events: list[tuple[int, Event]] = []
        if turn.fault is not None:
            self.cancel(key)
            return [(key, Failed.of(turn.fault))]
        cached = 0
        if not answer.begun:
            answer.begun = True
            cached = answer.sequence.cached or 0
            if answer.alternatives is not None:
                events.append((key, Scored(answer.scores)))
        text = turn.text
        if turn.reason is not None:
            text += answer.speaking.flush()
            self.cancel(key)
        ids = answer.sequence.tokens[-turn.tokens :] if answer.ids and turn.tokens else []
        delta = Delta(
            text, turn.tokens, cached_tokens=cached, finish_reason=turn.reason, logprobs=turn.logprobs, ids=ids
        )
        return [*events, (key, delta)]

    def _budget(self) -> int:
        seconds = _STEP_SECONDS if self.schedule.decoding else _ALONE_SECONDS
        return max(_LEAST, min(_MOST, int(self._rate * seconds)))

    def _learn(self, works: list[Work], seconds: float) -> None:
        """Steps of prompts teach how many tokens a second there are; slower ones at once.

        Attention makes the end of a long prompt many times as dear as its beginning.
        """
        tokens = sum(work.count for work in works)
        if tokens >= _LEAST:
            rate = tokens / seconds
            self._rate = min(rate, self._rate + 0.3 * (rate - self._rate))


def read(path: Path, *, keep_floats: bool) -> tuple[GgufFile | Folder, Vocabulary]:
    """The weights and the tokenizer of a .gguf file or a folder. Raises WeightsError with what is wrong with it."""
    if path.suffix == ".gguf":
        file = GgufFile(path, keep_floats=keep_floats)
        return file, vocabulary.from_gguf(file.header, file.shape.vocabulary)
    folder = Folder(path, keep_floats=keep_floats)
    return folder, vocabulary.from_folder(path, folder.shape.vocabulary)
