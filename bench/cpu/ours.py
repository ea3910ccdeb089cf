"""Hearth's paged engine stepped by itself, a process of its own: `python -m bench.cpu.ours FILE CONTEXT [without]`.

It has the kernel that `hearth engines build openvino` made in the repository's own data, where it was built, unless it
is to be `without`.

A line of JSON in, prompts as token ids and how many tokens each answer gets; a line out: seconds until every answer
had its first token, seconds from then to the end, and how many tokens came in those.
"""

import json
import sys
import time
from pathlib import Path

from bench.side import ROOT
from config.model import LocalModel
from server.models.engine import Delta, Failed, Generate, Sampling
from server.models.engines.paged import PagedEngine

_AT_ONCE = 8


def main(file: str, context: str, without: str | None = None) -> None:
    keys = {"engine": "openvino", "source": file, "context": int(context), "cache_tokens": _AT_ONCE * int(context)}
    spec = LocalModel.model_validate(keys, context={})
    data = ROOT / "data"
    engine = PagedEngine(spec, Path(file), cache=(data / "nothing-built" if without else data) / "cache")
    card = engine.load(lambda text: None)
    print(card.precision, flush=True)
    for line in sys.stdin:
        prompts, tokens = json.loads(line)
        print(json.dumps(_timed(engine, prompts, tokens)), flush=True)
    engine.close()


def _timed(engine: PagedEngine, prompts: list[list[int]], tokens: int) -> tuple[float, float, int]:
    started = begun = time.perf_counter()
    for key, ids in enumerate(prompts):
        sampling = Sampling(temperature=0.0, ignore_eos=True)
        engine.submit(key, Generate(prompt=ids, max_tokens=tokens, sampling=sampling))
    answering: set[int] = set()
    written = before = 0
    while engine.busy:
        for key, event in engine.step():
            if isinstance(event, Failed):
                raise RuntimeError(event.message)
            if isinstance(event, Delta):
                written += event.tokens
                answering.add(key)
        if before == 0 and len(answering) == len(prompts):
            begun, before = time.perf_counter(), written
    return begun - started, time.perf_counter() - begun, written - before


if __name__ == "__main__":
    main(*sys.argv[1:])
