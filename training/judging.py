"""What the model in training answers on held-out passages: the best span of each, and how far it beats "not here"."""

import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import torch
from tokenizers import Tokenizer

from server.evaluating import exact, f1
from server.models.engines.reader.questions import Passage
from training.examples import Row, row
from training.loop import padded
from training.model import Reader

WINDOW, STRIDE, LONGEST_ANSWER = 600, 400, 30
_BATCH = 8
_THREADS = 2


class Told(NamedTuple):
    text: str
    margin: float


def tell(model: Reader, tokenizer: Tokenizer, asked: Sequence[tuple[str, str]]) -> list[Told]:
    """The best span of each (question, passage), always one, with its score above that of "not here"."""
    encoded: dict[str, Any] = {}
    rows: list[tuple[int, int, Row]] = []
    for place, (question, text) in enumerate(asked):
        if text not in encoded:
            encoded[text] = tokenizer.encode(text, add_special_tokens=False)
        for low in range(0, max(1, len(text) - WINDOW + STRIDE), STRIDE):
            made = row(tokenizer, question, encoded[text], low, min(len(text), low + WINDOW), [])
            if made is not None:
                rows.append((place, low, made))
    best = [Told("", float("-inf")) for _ in asked]
    rows.sort(key=lambda each: len(each[2].ids))
    model.eval()
    batches = [rows[at : at + _BATCH] for at in range(0, len(rows), _BATCH)]
    with ThreadPoolExecutor(_THREADS, initializer=torch.set_num_threads, initargs=(1,)) as threads:
        found = list(threads.map(lambda batch: _logits(model, batch), batches))
    for batch, logits in zip(batches, found, strict=True):
        for (place, low, one), scores in zip(batch, logits, strict=True):
            start, end, margin = _span(one, scores)
            if margin > best[place].margin:
                text, passage = asked[place][1], encoded[asked[place][1]]
                first = next(n for n, (begin, stop) in enumerate(passage.offsets) if begin >= low and stop > begin)
                before = one.kinds.index(1)
                begin = passage.offsets[start - before + first][0]
                best[place] = Told(text[begin : passage.offsets[end - before + first][1]], margin)
    return best


def _logits(model: Reader, batch: Sequence[tuple[int, int, Row]]) -> torch.Tensor:
    with torch.inference_mode():
        return model(*padded([each[2] for each in batch]))


def _span(one: Row, scores: torch.Tensor) -> tuple[int, int, float]:
    first, last = one.kinds.index(1), len(one.ids) - 1
    pairs = scores[first:last, 0, None] + scores[None, first:last, 1]
    allowed = torch.ones_like(pairs, dtype=torch.bool).triu().tril(LONGEST_ANSWER - 1)
    pairs = pairs.masked_fill(~allowed, -1e9)
    best = int(pairs.argmax())
    start, end = divmod(best, pairs.shape[1])
    return first + start, first + end, float(pairs.max() - scores[0].sum())


def forced(model: Reader, tokenizer: Tokenizer, passages: Sequence[Passage], most: int | None) -> str:
    """F1 and EM of the best span given the right passage, over `most` of the answerable questions."""
    asked = [(q, passage.context) for passage in passages for q in passage.questions if q.answers]
    random.Random(0).shuffle(asked)
    asked = asked[:most]
    told = tell(model, tokenizer, [(question.question, text) for question, text in asked])
    texts = [[answer.text for answer in question.answers] for question, _ in asked]
    pairs = list(zip(told, texts, strict=True))
    whole_f1 = 100 * sum(f1(one.text, answers) for one, answers in pairs) / len(pairs)
    whole_em = 100 * sum(exact(one.text, answers) for one, answers in pairs) / len(pairs)
    return f"F1 {whole_f1:.1f} EM {whole_em:.1f} n={len(pairs)}"
