"""`/v1/completions`: OpenAI's older wire, a prompt that the model goes on with; whole and streamed, with echo."""

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from secrets import token_hex
from typing import Any

import msgspec
from litestar import Request, post

from server import chat
from server.api import sse
from server.api.decode import decode, ignored
from server.api.document import documented
from server.api.reply import Direct, json
from server.api.sampled import SAMPLED, grammar, sampling
from server.api.turns import Count, Head, Turn, admit, steps
from server.api.wire import Completion, CompletionChoice, CompletionLogprobs, CompletionRequest
from server.chat import Asked, Part
from server.errors import InvalidValue, UnsupportedParameter
from server.models.abilities import able
from server.models.engine import TokenLogprob
from server.runtime import Runtime, Target

_json = msgspec.json.Encoder()
_MOST_CHOICES = 128


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
    no_effect = _check(asked, target)
    wanted = [
        _asked(asked, prompt, index) for prompt in _prompts(asked.prompt) for index in range(asked.n or 1)
    ]  # OpenAI's order: all choices of the first prompt, then those of the second
    if len(wanted) > _MOST_CHOICES:
        raise InvalidValue(f"At most {_MOST_CHOICES} answers a request; this asks for {len(wanted)}.", param="prompt")
    turns = [chat.turn(runtime, target, each) for each in wanted]
    head = Head(f"cmpl-{token_hex(16)}", int(time.time()), asked.model, runtime.fingerprint)
    choices = [_Choice(index, each, bool(asked.echo)) for index, each in enumerate(wanted)]
    headers = ignored(unknown + no_effect)
    starts = await admit(turns)
    if asked.stream:
        usage = bool(asked.stream_options and asked.stream_options.include_usage)
        return sse.EventStream(_chunks(head, turns, choices, usage, [each.prompt_tokens for each in starts]), headers)
    count = Count()
    said: list[list[Part]] = [[] for _ in turns]
    async with aclosing(steps(turns)) as arriving:
        async for index, parts in arriving:
            count.add(parts)
            said[index] += parts
    whole = _completion(head, [choice.of(parts) for choice, parts in zip(choices, said, strict=True)])
    whole.usage = count.usage(sum(each.prompt_tokens for each in starts))
    return json(whole, headers=headers)


def _check(asked: CompletionRequest, target: Target) -> list[str]:
    """Names of the parameters without effect. Raises for those that would break a promise."""
    card = target.model.card
    honours = card.honours if card else frozenset()
    if card is not None and card.task != "chat":
        raise InvalidValue(f"The model `{target.id}` is for {card.task}, not for completions.", param="model")
    if asked.suffix:
        raise UnsupportedParameter(f"The model `{target.id}` does not fill in before a suffix.", param="suffix")
    if asked.best_of is not None and asked.best_of != (asked.n or 1):
        raise UnsupportedParameter("`best_of` other than `n` is not supported.", param="best_of")
    formatted = (asked.response_format or {"type": "text"}).get("type") != "text"
    needed = {
        "logprobs": asked.logprobs is not None,
        "prompt_logprobs": _scores(asked),
        "logit_bias": bool(asked.logit_bias),
        "response_format": formatted,
    }
    for name in (name for name, wanted in needed.items() if wanted and card is not None and name not in honours):
        shown = "echo" if name == "prompt_logprobs" else name
        message = f"The model `{target.id}` cannot honour `{shown}`. These engines can: {', '.join(able(name))}."
        raise UnsupportedParameter(message, param=shown)
    return [name for name in SAMPLED if getattr(asked, name) is not None and name not in honours] + (
        ["user"] if asked.user is not None else []
    )


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
    return isinstance(value, int) and not isinstance(value, bool)


def _asked(asked: CompletionRequest, prompt: str | list[int], index: int) -> Asked:
    return Asked(
        prompt=prompt,
        max_tokens=asked.max_tokens,
        stop=(asked.stop,) if isinstance(asked.stop, str) else tuple(asked.stop or ()),
        sampling=sampling(asked, index, asked.logprobs),
        grammar=grammar(asked.response_format),
        prompt_logprobs=(asked.logprobs or 0) if _scores(asked) else None,
    )


class _Choice:
    """One answer on its way: the echo before it, and where its next token begins."""

    def __init__(self, index: int, asked: Asked, echo: bool) -> None:
        self._index = index
        self._scored = asked.sampling.top_logprobs is not None
        self._offset = 0
        self._echo = asked.prompt if echo and isinstance(asked.prompt, str) else ""
        self._echo_ids = echo and not isinstance(asked.prompt, str)

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
        return CompletionChoice(text, self._index, logprobs, parts[-1].finish_reason if parts else None)

    def _logprobs(self, tokens: list[TokenLogprob]) -> CompletionLogprobs:
        offsets = []
        for token in tokens:
            offsets.append(self._offset)
            self._offset += len(token.token)
        return CompletionLogprobs(
            tokens=[token.token for token in tokens],
            token_logprobs=[token.logprob for token in tokens],
            top_logprobs=[
                None if token.logprob is None else {each.token: each.logprob or 0.0 for each in token.top}
                for token in tokens
            ],
            text_offset=offsets,
        )


def _completion(head: Head, choices: list[CompletionChoice]) -> Completion:
    return Completion(head.id, "text_completion", head.created, head.model, choices, head.fingerprint)


async def _chunks(
    head: Head, turns: list[Turn], choices: list[_Choice], usage: bool, read: list[int]
) -> AsyncGenerator[bytes, None]:
    count = Count()
    async with aclosing(steps(turns)) as arriving:
        async for index, parts in arriving:
            count.add(parts)
            choice = choices[index].of(parts)
            if choice.text or choice.finish_reason is not None or choice.logprobs:
                chunk = _completion(head, [choice])
                if usage:
                    chunk.usage = None
                yield sse.event(_json.encode(chunk))
    if usage:
        last = _completion(head, [])
        last.usage = count.usage(sum(read))
        yield sse.event(_json.encode(last))
    yield sse.DONE
