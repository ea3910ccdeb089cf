"""What a request needs to begin: a prompt in the model's tokens, with room for an answer, and nothing unknown."""

from dataclasses import replace

import pytest

from server.errors import ContextLengthExceeded, RequestError
from server.models.engine import Embed, Generate, Grammar, Request, Sampling
from server.models.engines.sampling.admission import Desk
from server.models.engines.sampling.sampler import Choice
from server.models.engines.sampling.vocabulary import Vocabulary, from_folder
from tests.making import made


@pytest.fixture(scope="module")
def words() -> Vocabulary:
    return replace(from_folder(made("random", format="safetensors"), 2048), begins=5)


def test_a_text_begins_as_its_model_wants_and_tokens_stay_as_they_are(words: Vocabulary) -> None:
    desk = Desk(words, 64)
    assert desk.admit(Generate(prompt="Hello")).tokens == [5, *words.encode("Hello")]
    assert desk.admit(Generate(prompt=[7, 8])).tokens == [7, 8]


@pytest.mark.parametrize(("asked", "limit"), [(None, 62), (10, 10), (0, 0), (1000, 62)])
def test_an_answer_ends_where_the_context_does(asked: int | None, limit: int, words: Vocabulary) -> None:
    assert Desk(words, 64).admit(Generate(prompt=[7, 8], max_tokens=asked)).limit == limit


@pytest.mark.parametrize(
    ("request_", "param"),
    [
        (Embed(["x"]), "model"),
        (Generate(), "messages"),
        (Generate(prompt=[]), "prompt"),
        (Generate(prompt=[2048]), "prompt"),
        (Generate(prompt=[-1]), "prompt"),
        (Generate(prompt=[1], sampling=Sampling(logit_bias={2048: 1.0})), "logit_bias"),
        (Generate(prompt=[1], grammar=Grammar("regex", "(")), "response_format"),
    ],
)
def test_what_cannot_be_answered_is_refused_with_its_field(request_: Request, param: str, words: Vocabulary) -> None:
    with pytest.raises(RequestError) as refused:
        Desk(words, 64).admit(request_)
    assert refused.value.param == param


def test_a_prompt_that_fills_the_context_is_refused(words: Vocabulary) -> None:
    with pytest.raises(ContextLengthExceeded):
        Desk(words, 4).admit(Generate(prompt=[1, 2, 3, 4]))


def test_log_probabilities_are_told_with_texts_and_bytes_where_they_were_asked_for(words: Vocabulary) -> None:
    desk = Desk(words, 64)
    [token] = words.encode("H")
    assert desk.logprobs(Choice(token)) == []
    [told] = desk.logprobs(Choice(token, -0.5, ((token, -0.5),)))
    assert (told.token, told.data, told.logprob, told.top[0].token) == ("H", b"H", -0.5, "H")
