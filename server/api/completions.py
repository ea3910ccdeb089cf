"""`/v1/completions`: OpenAI's older wire, a prompt that the model goes on with; whole and streamed, with echo."""

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from secrets import token_hex
from typing import Any

import msgspec
from litestar import Request, post

from server import chat
from server.api import sse
from server.api.decode import decode, fields, ignored
from server.api.document import documented
from server.api.formats import grammar
from server.api.reply import Direct, json
from server.api.sampled import Counted, check_length, counted, promised, require, sampling, without_effect
from server.api.turns import Count, Head, Turn, admit, steps, whole
from server.api.wire_completions import Completion, CompletionChoice, CompletionLogprobs, CompletionRequest
from server.chat import Asked, Part, Started
from server.chat.infill import filled, infill_of
from server.errors import InvalidValue, UnsupportedParameter
from server.models.engine import TokenLogprob
from server.runtime import Runtime, Target

_json = msgspec.json.Encoder()
_MOST_CHOICES = 128
_USUAL = 16
"""Tokens of an answer whose length is left open, as OpenAI has it."""


@post(
    ["/v1/completions", "/completions"],
    status_code=200,
    opt={"needs": "infer"},
    operation_class=documented(CompletionRequest, Completion, stream=Completion, summary="Go on with a prompt"),
)
async def completions(request: Request[Any, Any, Any]) -> Direct:
    asked, unknown = await decode(request, CompletionRequest)
    runtime: Runtime = request.app.state["runtime"]
    target = runtime.target(asked.model)
    usage = counted(asked)
    no_effect = check(asked, target)
    prompts, tries = _prompts(asked.prompt), asked.best_of or asked.n or 1
    if len(prompts) * tries > _MOST_CHOICES:
        message = f"At most {_MOST_CHOICES} answers a request; this asks for {len(prompts) * tries}."
        raise InvalidValue(message, param="prompt")
    fills = asked.suffix and not target.forwards  # another server's model is sent the suffix as it is
    whole_prompts = [await filled(target, each, asked.suffix or "") if fills else each for each in prompts]
    # OpenAI's order: all choices of the first prompt, then those of the second.
    wanted = [asked_of(asked, prompt, index) for prompt in whole_prompts for index in range(tries)]
    if target.may_forward:
        sent = fields(await request.body())
        wanted = [msgspec.structs.replace(each, sent=sent) for each in wanted]
    turns = [chat.turn(runtime, target, each) for each in wanted]
    head = Head(f"cmpl-{token_hex(16)}", int(time.time()), asked.model, runtime.fingerprint)
    echoed = [prompt if asked.echo else "" for prompt in prompts for _ in range(asked.n or 1)]
    choices = [_Choice(index, each, asked.logprobs is not None) for index, each in enumerate(echoed)]
    headers = ignored([] if target.forwards else unknown + no_effect)
    starts = (await admit(turns))[::tries]  # a prompt counts once
    for index, choice in enumerate(choices):
        choice.read = starts[index // (asked.n or 1)].ids
    if asked.stream:
        return sse.EventStream(_chunks(head, turns, choices, usage, starts), headers)
    count = Count()
    said = await whole(turns)
    for parts in said:
        count.add(parts)
    best = _best(said, asked.n or 1, tries)
    answer = _completion(head, [choice.of(parts) for choice, parts in zip(choices, best, strict=True)])
    answer.usage = count.usage(sum(each.prompt_tokens for each in starts))
    return json(answer, headers=headers)


def _best(said: list[list[Part]], n: int, tries: int) -> list[list[Part]]:
    """Of each prompt's `tries` answers the `n` likeliest a token, the best one first."""
    if n == tries:
        return said
    best: list[list[Part]] = []
    for start in range(0, len(said), tries):
        best += sorted(said[start : start + tries], key=_likelihood, reverse=True)[:n]
    return best


def _likelihood(parts: list[Part]) -> float:
    found = [token.logprob or 0.0 for part in parts for token in part.logprobs]
    return sum(found) / len(found) if found else 0.0


def check(asked: CompletionRequest, target: Target) -> list[str]:
    """Names of the parameters without effect. Raises for those that would break a promise."""
    card = target.model.card
    if card is not None and card.task != "chat":
        raise InvalidValue(f"The model `{target.id}` is for {card.task}, not for completions.", param="model")
    if asked.suffix:
        if not target.forwards:
            infill_of(target)
        if _scores(asked):
            raise UnsupportedParameter("With a `suffix`, only a text is echoed, without `logprobs`.", param="echo")
    if card is not None:
        require(_needed(asked), target.id, card)
    if target.forwards:
        return []
    return without_effect(asked, card) + (["user"] if asked.user is not None else [])


def _needed(asked: CompletionRequest) -> dict[str, str]:
    """The abilities a model needs for this request, by the field that asks for each."""
    needed = promised(asked)
    if _chooses(asked):
        needed["best_of"] = "logprobs"
    if asked.logprobs is not None:
        needed["logprobs"] = "logprobs"
    if _scores(asked):
        needed["echo"] = "prompt_logprobs"
    return needed


def _chooses(asked: CompletionRequest) -> bool:
    """Whether more answers are made than returned. Raises InvalidValue where `best_of` does not fit `n`."""
    if asked.best_of is None or asked.best_of == (asked.n or 1):
        return False
    if asked.best_of < (asked.n or 1):
        raise InvalidValue("`best_of` is less than `n`.", param="best_of")
    if asked.stream:
        raise InvalidValue("The best of several answers is known when all are whole: not streamed.", param="best_of")
    return True


def _scores(asked: CompletionRequest) -> bool:
    """Whether the prompt's own tokens are needed: for their log-probabilities, or to know an echo's text."""
    return bool(asked.echo) and (asked.logprobs is not None or not _is_text(asked.prompt))


def _is_text(prompt: str | list[Any]) -> bool:
    return isinstance(prompt, str) or all(isinstance(each, str) for each in prompt)


def _prompts(prompt: str | list[Any]) -> list[str | list[int]]:
    match prompt:
        case str(text):
            return [text]
        case [*texts] if texts and all(isinstance(each, str) for each in texts):
            return list(texts)
        case [*ids] if ids and all(_is_id(each) for each in ids):
            return [ids]
        case [*lists] if lists and all(isinstance(each, list) and each and all(map(_is_id, each)) for each in lists):
            return list(lists)
        case _:
            raise InvalidValue("`prompt` is a text, texts, token ids, or lists of token ids.", param="prompt")


def _is_id(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31


def asked_of(asked: CompletionRequest, prompt: str | list[int], index: int) -> Asked:
    limit = _USUAL if asked.max_tokens is None else asked.max_tokens
    check_length(asked, limit)
    return Asked(
        prompt=prompt,
        max_tokens=limit,
        stop=(asked.stop,) if isinstance(asked.stop, str) else tuple(asked.stop or ()),
        sampling=sampling(asked, index, 0 if asked.logprobs is None and _chooses(asked) else asked.logprobs),
        grammar=grammar(asked),
        prompt_logprobs=(asked.logprobs or 0) if _scores(asked) else None,
        token_ids=bool(asked.return_token_ids),
    )


class _Choice:
    """One answer on its way: the echo before it, and where its next token begins."""

    def __init__(self, index: int, echo: str | list[int], scored: bool) -> None:
        """`echo` is the prompt to be repeated; of token ids the text comes with the first parts."""
        self._index = index
        self._scored = scored
        self._offset = 0
        self._echo = echo if isinstance(echo, str) else ""
        self._echo_ids = not isinstance(echo, str)
        self.read: Sequence[int] = ()
        """The ids of the prompt's tokens, where they are to be told; they are once."""

    def of(self, parts: list[Part]) -> CompletionChoice:
        """What `parts` add."""
        text = ""
        tokens: list[TokenLogprob] = []
        for part in parts:
            if part.scored and self._echo_ids:
                text += b"".join(token.data for token in part.scored).decode(errors="replace")
            tokens += [*part.scored, *part.logprobs]
            text += part.text
        text, self._echo = self._echo + text, ""
        logprobs = self._logprobs(tokens) if self._scored else None
        choice = CompletionChoice(text, self._index, logprobs, parts[-1].finish_reason if parts else None)
        if ids := [token for part in parts for token in part.ids]:
            choice.token_ids = ids
        if self.read:
            choice.prompt_token_ids, self.read = list(self.read), ()
        return choice

    def _logprobs(self, tokens: list[TokenLogprob]) -> CompletionLogprobs:
        offsets = []
        for token in tokens:
            offsets.append(self._offset)
            self._offset += len(token.token)
        return CompletionLogprobs(
            tokens=[token.token for token in tokens],
            token_logprobs=[token.logprob for token in tokens],
            top_logprobs=[
                None
                if token.logprob is None
                else {token.token: token.logprob} | {each.token: each.logprob or 0.0 for each in token.top}
                for token in tokens
            ],
            text_offset=offsets,
        )


def _completion(head: Head, choices: list[CompletionChoice]) -> Completion:
    return Completion(head.id, "text_completion", head.created, head.model, choices, head.fingerprint)


async def _chunks(
    head: Head, turns: list[Turn], choices: list[_Choice], usage: Counted, starts: list[Started]
) -> AsyncGenerator[bytes, None]:
    count = Count()
    read = sum(each.prompt_tokens for each in starts)
    async with aclosing(steps(turns)) as arriving:
        async for index, parts in arriving:
            count.add(parts)
            choice = choices[index].of(parts)
            if choice.text or choice.finish_reason is not None or choice.logprobs or choice.token_ids:
                chunk = _completion(head, [choice])
                if usage != "never":
                    chunk.usage = count.usage(read) if usage == "always" else None
                yield sse.event(_json.encode(chunk))
    if usage != "never":
        last = _completion(head, [])
        last.usage = count.usage(read)
        yield sse.event(_json.encode(last))
    yield sse.DONE
